//! Progress on a terminal, and warnings.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::progress::Counters;
use crate::progress::Phase;
use crate::progress::Progress;
use crate::service::run::AtWork;
use crate::service::run::Hear;
use crate::service::run::Numbers;
pub(super) use crate::service::run::Of;
use crate::service::run::Watch;
use crate::store::remote::Surroundings;
use crate::sync::lock;
use crate::tree::Time;
use indicatif::MultiProgress;
use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle;

use crate::cli::dates;
use crate::cli::interrupt;
use crate::cli::output;
use crate::cli::output::Style;
use crate::cli::table;
use crate::cli::units;

/// The interval at which the bar is drawn.
const TICK: Duration = Duration::from_millis(100);
/// The time after which work gets a bar.
const PATIENCE: Duration = Duration::from_millis(400);
/// Speed and time left are computed from the last part of the work, this long.
const WINDOW: Duration = Duration::from_secs(8);
/// The minimum number of columns in which the name of a file is useful.
const LONG_WIDTH_MIN: usize = 12;
/// The number of columns of the bar itself.
const BAR_WIDTH: u64 = 10;

/// The options for the library's messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Messages are printed as JSON.
    pub json: bool,
    /// Details are printed.
    pub verbose: bool,
    /// Details include reasons.
    pub reasons: bool,
    /// Bars may be drawn if there is a terminal.
    pub bar: bool,
}

/// Standard error during work: a bar for each piece of work, and messages above the bars.
pub(super) struct Screen {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    ticker: Option<thread::JoinHandle<()>>,
}

struct Shared {
    manner: Manner,
    color: bool,
    stop: AtomicBool,
    /// The renderer of all bars.
    bars: MultiProgress,
    state: Mutex<State>,
    ended: Condvar,
    /// The listener for warnings and phases, besides the screen.
    hearer: Mutex<Option<Arc<dyn Hear>>>,
}

/// The handle by which another thread follows the work and can stop it.
struct Onlooker(Arc<Shared>);

impl Watch for Onlooker {
    fn at_work(&self) -> Vec<AtWork> {
        let state = self.0.state();
        // The first one is the command's own work, which has no lane.
        state.works.iter().skip(1).map(Work::now).collect()
    }

    fn stop(&self) {
        self.0.stop();
    }

    fn is_stopped(&self) -> bool {
        self.0.stop.load(Relaxed)
    }

    fn let_hear(&self, hearer: Option<Arc<dyn Hear>>) {
        *lock(&self.0.hearer) = hearer;
    }
}

#[derive(Default)]
struct State {
    /// The pieces of work under way: first the command's own, then those of its lanes.
    works: Vec<Work>,
    /// The number of callers that currently want no bars.
    hidden: usize,
    over: bool,
}

/// A piece of work.
struct Work {
    /// The subject of the work, if there may be several pieces.
    of: Of,
    /// The name of the subject.
    name: String,
    /// When the current phase began, by the clock.
    begun: Time,
    counters: Arc<Counters>,
    /// The current phase; `None` while there is none.
    phase: Option<Phase>,
    /// Files that are being read and take long.
    long: Vec<String>,
    /// The recent speed, measured afresh in each phase.
    pace: Pace,
    since: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Work {
    fn new(of: Of, counters: Arc<Counters>) -> Self {
        let name = of.name();
        let begun = dates::now();
        Self { of, name, begun, counters, phase: None, long: Vec::new(), pace: Pace::default(), since: None, bar: None }
    }

    fn now(&self) -> AtWork {
        let numbers = Numbers::of(&self.counters);
        AtWork { of: self.of.clone(), phase: self.phase, since: self.begun, numbers }
    }

    fn begin(&mut self, phase: Phase) {
        self.phase = Some(phase);
        self.begun = dates::now();
        self.long.clear();
        self.pace = Pace::default();
    }

    /// Notes that a file that takes long was begun, or (`None`) that the first such file is done.
    fn long_file(&mut self, path: Option<&[u8]>) {
        match path {
            Some(path) => self.long.push(crate::path::Shown(path).to_string()),
            None if self.long.is_empty() => {}
            None => drop(self.long.remove(0)),
        }
    }

    /// Removes the bar.
    fn hide(&mut self, bars: &MultiProgress) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            bars.remove(&bar);
        }
    }

    /// Measures the speed, and draws the bar if the work has gone on for long enough.
    fn draw(&mut self, bars: &MultiProgress, now: Instant, width: usize) {
        let Some(phase) = self.phase else {
            self.since = None;
            return;
        };
        let numbers = Numbers::of(&self.counters);
        self.pace.add(now, numbers);
        if now - *self.since.get_or_insert(now) >= PATIENCE {
            let bar = self.bar.get_or_insert_with(|| bars.add(new_bar()));
            let mut message = line(&self.name, phase, numbers, &self.pace, width);
            if let Some(path) = self.long.last() {
                // The name of the file is shown only if enough of the line is left.
                let left = width.saturating_sub(table::width(&message) + 2);
                if left >= LONG_WIDTH_MIN {
                    message = format!("{message}  {}", table::cut(path, left, true));
                }
            }
            bar.set_message(message);
            bar.tick();
        }
    }
}

/// One of several concurrent pieces of work, with its own bar, and its name before every message.
pub(super) struct Lane {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    of: Of,
    name: String,
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let own = |work: &mut Work| Arc::ptr_eq(&work.counters, &self.counters);
        if let Some(mut work) = state.works.extract_if(.., own).next() {
            work.hide(&self.shared.bars);
        }
    }
}

impl Progress for Lane {
    fn phase(&self, phase: Phase) {
        let mut state = self.shared.state();
        let own = state.works.iter_mut().find(|work| Arc::ptr_eq(&work.counters, &self.counters));
        own.into_iter().for_each(|work| work.begin(phase));
        drop(state);
        if let Some(hearer) = self.shared.hearer() {
            hearer.phase(&self.of, phase);
        }
    }

    fn warn(&self, message: &str) {
        self.shared.warn(&format!("{}: {message}", self.name));
    }

    fn detail(&self, message: &str) {
        self.shared.detail(&format!("{}: {message}", self.name));
    }

    fn wants_details(&self) -> bool {
        self.shared.wants_details()
    }

    fn wants_reasons(&self) -> bool {
        self.shared.wants_reasons()
    }

    fn long_file(&self, path: Option<&[u8]>) {
        let mut state = self.shared.state();
        let own = state.works.iter_mut().find(|work| Arc::ptr_eq(&work.counters, &self.counters));
        own.into_iter().for_each(|work| work.long_file(path));
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Relaxed)
    }
}

/// A guard that hides the bars until it is dropped.
pub(super) struct Hidden<'s>(&'s Shared);

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        self.0.state().hidden -= 1;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hearer(&self) -> Option<Arc<dyn Hear>> {
        lock(&self.hearer).clone()
    }

    /// Asks the work to end in good order. Returns whether this was the first time.
    fn stop(&self) -> bool {
        let first = !self.stop.swap(true, Relaxed);
        if first && !self.manner.json {
            self.say("stopping ... (once more stops at once)");
        }
        first
    }

    /// Waits for this time, or until the work should stop.
    fn wait(&self, time: Duration) {
        let begun = Instant::now();
        while let Some(left) = time.checked_sub(begun.elapsed())
            && !left.is_zero()
            && !self.stop.load(Relaxed)
        {
            thread::sleep(left.min(TICK));
        }
    }

    /// Prints a line above the bars.
    fn say(&self, line: &str) {
        self.bars.suspend(|| {
            let _ = writeln!(io::stderr(), "{line}"); // if nobody reads it, nothing can be done about it
        });
    }

    fn warn(&self, message: &str) {
        if let Some(hearer) = self.hearer() {
            hearer.warning(message);
        }
        if self.manner.json {
            self.say(&serde_json::json!({ "warning": message }).to_string());
        } else {
            let text = output::wrapped(&format!("warning: {message}"), output::error_width());
            let rest = text.strip_prefix("warning:").unwrap_or(&text);
            self.say(&format!("{}{rest}", output::paint(self.color, Style::Warning, "warning:")));
        }
    }

    fn wants_details(&self) -> bool {
        self.manner.verbose && !self.manner.json
    }

    fn wants_reasons(&self) -> bool {
        self.manner.reasons && self.wants_details()
    }

    fn detail(&self, message: &str) {
        if self.wants_details() {
            self.say(message);
        }
    }
}

/// The surroundings of a store on another machine.
struct Around {
    shared: Arc<Shared>,
    begun: Instant,
}

impl Surroundings for Around {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn wait(&self, time: Duration) {
        self.shared.wait(time);
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Relaxed)
    }

    fn random(&self) -> u64 {
        // Each hasher has its own random keys.
        RandomState::new().hash_one(self.begun.elapsed())
    }

    fn tell(&self, what: &str) {
        self.shared.say(what);
    }
}

impl Screen {
    /// A screen that shows nothing until there is something to say.
    pub(super) fn new(manner: Manner) -> Self {
        let terminal = io::stderr().is_terminal();
        let shared = Arc::new(Shared {
            manner: Manner { bar: manner.bar && terminal && !manner.json, ..manner },
            color: terminal && output::colors(),
            stop: AtomicBool::new(false),
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            state: Mutex::default(),
            ended: Condvar::new(),
            hearer: Mutex::default(),
        });
        let counters: Arc<Counters> = Arc::default();
        shared.state().works.push(Work::new(Of::default(), Arc::clone(&counters)));
        // If the thread cannot be started, no bars are drawn.
        let ticker = shared
            .manner
            .bar
            .then(|| {
                let shared = Arc::clone(&shared);
                thread::Builder::new().spawn(move || tick(&shared)).ok()
            })
            .flatten();
        Self { shared, counters, ticker }
    }

    /// From now on, Ctrl-C asks the work to end in good order.
    pub(super) fn watch_interrupts(&self) {
        let shared = Arc::clone(&self.shared);
        interrupt::end_gently(move || shared.stop());
    }

    /// A handle by which another thread follows the work and can stop it.
    pub(super) fn watch(&self) -> Arc<dyn Watch> {
        Arc::new(Onlooker(Arc::clone(&self.shared)))
    }

    /// A function that waits for a time, or until the work should stop.
    pub(super) fn waiter(&self) -> impl Fn(Duration) + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |time| shared.wait(time)
    }

    /// A function that warns, for work that outlives this borrow.
    pub(super) fn warner(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |message| shared.warn(message)
    }

    /// The surroundings that a store on another machine needs: a clock, random numbers, Ctrl-C and a place for
    /// messages.
    pub(super) fn surroundings(&self) -> Arc<dyn Surroundings> {
        Arc::new(Around { shared: Arc::clone(&self.shared), begun: Instant::now() })
    }

    /// From now on, Ctrl-C asks the work to end in good order, however often it is pressed: the work is undone.
    pub(super) fn watch_interrupts_patiently(&self) {
        let shared = Arc::clone(&self.shared);
        interrupt::end_gently(move || {
            if !shared.stop.swap(true, Relaxed) {
                shared.say("stopping ...");
            }
            true
        });
    }

    /// From now on, Ctrl-C ends the work in good order without a message, because that is the normal way to end it.
    #[cfg(all(feature = "mount", any(target_os = "linux", target_os = "freebsd")))]
    pub(super) fn watch_interrupts_quietly(&self) {
        let shared = Arc::clone(&self.shared);
        interrupt::end_gently(move || !shared.stop.swap(true, Relaxed));
    }

    /// Whether bars are drawn.
    pub(super) fn draws(&self) -> bool {
        self.shared.manner.bar
    }

    /// Removes the bar of the command, because the work is over or a question follows. The bars of lanes stay.
    pub(super) fn clear(&self) {
        if let Some(work) = self.shared.state().works.first_mut() {
            work.phase = None;
            work.hide(&self.shared.bars);
        }
    }

    /// Begins a piece of work that may run beside others. It ends when the lane is dropped.
    pub(super) fn lane(&self, of: Of) -> Lane {
        let counters: Arc<Counters> = Arc::default();
        let name = of.name();
        self.shared.state().works.push(Work::new(of.clone(), Arc::clone(&counters)));
        Lane { shared: Arc::clone(&self.shared), counters, of, name }
    }

    /// Lets `print` write to the terminal above the bars.
    pub(super) fn aside<R>(&self, print: impl FnOnce() -> R) -> R {
        self.shared.bars.suspend(print)
    }

    /// Hides the bars until the guard is dropped, for a question at the terminal.
    pub(super) fn hide(&self) -> Hidden<'_> {
        let mut state = self.shared.state();
        state.hidden += 1;
        state.works.iter_mut().for_each(|work| work.hide(&self.shared.bars));
        Hidden(&self.shared)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.ended.notify_all();
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join(); // a bar that failed must not make the work fail
        }
        self.clear();
    }
}

impl Progress for Screen {
    fn phase(&self, phase: Phase) {
        self.shared.state().works.first_mut().into_iter().for_each(|work| work.begin(phase));
    }

    fn warn(&self, message: &str) {
        self.shared.warn(message);
    }

    fn detail(&self, message: &str) {
        self.shared.detail(message);
    }

    fn wants_details(&self) -> bool {
        self.shared.wants_details()
    }

    fn wants_reasons(&self) -> bool {
        self.shared.wants_reasons()
    }

    fn long_file(&self, path: Option<&[u8]>) {
        self.shared.state().works.first_mut().into_iter().for_each(|work| work.long_file(path));
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Relaxed)
    }
}

/// Draws the bars until the screen is dropped.
fn tick(shared: &Shared) {
    let mut state = shared.state();
    while !state.over {
        if state.hidden == 0 {
            let (now, width) = (Instant::now(), output::terminal_width(io::stderr()).saturating_sub(3));
            state.works.iter_mut().for_each(|work| work.draw(&shared.bars, now, width));
        }
        state = shared.ended.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn new_bar() -> ProgressBar {
    // The bar is drawn by the renderer that it is added to.
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    ProgressStyle::with_template("{spinner} {wide_msg}").map_or(bar.clone(), |style| bar.with_style(style))
}

/// The speed of the work, from the last few seconds.
#[derive(Debug, Default)]
struct Pace(VecDeque<(Instant, Numbers)>);

impl Pace {
    fn add(&mut self, now: Instant, numbers: Numbers) {
        self.0.push_back((now, numbers));
        while self.0.front().is_some_and(|(then, _)| now - *then > WINDOW) {
            self.0.pop_front();
        }
    }

    /// The increase of a counter per second; `None` until enough time has passed.
    fn per_second(&self, counter: impl Fn(&Numbers) -> u64) -> Option<u64> {
        let ((first, before), (last, after)) = (self.0.front()?, self.0.back()?);
        let millis = u64::try_from((*last - *first).as_millis()).ok().filter(|&millis| millis >= 500)?;
        let gained = counter(after).saturating_sub(counter(before));
        Some((u128::from(gained) * 1000 / u128::from(millis)) as u64)
    }
}

/// The line of a bar, the most useful parts first. Parts that do not fit the width are left out.
fn line(name: &str, phase: Phase, numbers: Numbers, pace: &Pace, width: usize) -> String {
    let mut parts = match phase {
        Phase::Catalogue if numbers.files_goal > 0 => vec![
            "reading what is new in the vault:".to_owned(),
            format!("{} of {}", units::count(numbers.files), units::count(numbers.files_goal)),
        ],
        Phase::Catalogue => vec!["reading what is new in the vault".to_owned()],
        Phase::Plan => vec!["looking up what is needed".to_owned()],
        Phase::Publish => vec!["writing the last of it".to_owned()],
        Phase::Snapshot | Phase::Restore | Phase::Check | Phase::Collect => measured(numbers, pace),
    };
    if !name.is_empty() {
        parts.insert(0, table::cut(name, width / 3, false));
    }
    let mut line = String::new();
    for part in parts {
        let gap = if line.is_empty() { "" } else { "  " };
        if table::width(&line) + gap.len() + table::width(&part) > width {
            break;
        }
        line += gap;
        line += &part;
    }
    line
}

fn measured(numbers: Numbers, pace: &Pace) -> Vec<String> {
    let mut parts = Vec::new();
    let bytes = units::size(numbers.bytes);
    if numbers.bytes_goal > 0 {
        parts.push(bar(numbers.bytes, numbers.bytes_goal));
        let left = numbers.bytes_goal.saturating_sub(numbers.bytes);
        if let Some(speed) = pace.per_second(|numbers| numbers.bytes).filter(|&speed| speed > 0 && left > 0) {
            parts.push(format!("{} left", units::clock(Duration::from_secs(left / speed))));
        }
        parts.push(format!("{bytes} of {}", units::size(numbers.bytes_goal)));
    } else {
        parts.push(bytes);
    }
    parts.push(units::counted(numbers.files, "file", "files"));
    if let Some(speed) = pace.per_second(|numbers| numbers.read) {
        parts.push(format!("{}/s", units::size(speed)));
    }
    if numbers.unchanged > 0 {
        parts.push(format!("{} unchanged", units::count(numbers.unchanged)));
    }
    parts
}

/// `[=====>    ]  35 %`. A goal may be an estimate, so the bar never reaches it before the work is over.
fn bar(done: u64, goal: u64) -> String {
    let percent = (u128::from(done) * 100 / u128::from(goal.max(1))).min(99) as u64;
    let full = percent * BAR_WIDTH / 100;
    let cell = |n: u64| match n.cmp(&full) {
        Ordering::Less => '=',
        Ordering::Equal => '>',
        Ordering::Greater => ' ',
    };
    let bar: String = (0..BAR_WIDTH).map(cell).collect();
    format!("[{bar}] {percent:2} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(phase: Phase, goals: (u64, u64), secs: u64, width: usize, expected: &str) {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.add(start, Numbers::default());
        let numbers = Numbers {
            files: 1200,
            bytes: 300 << 20,
            unchanged: 1000,
            read: 100 << 20,
            files_goal: goals.0,
            bytes_goal: goals.1,
        };
        pace.add(start + Duration::from_secs(secs), numbers);
        assert_eq!(line("", phase, numbers, &pace, width), expected);
        let named = line("documents → disk", phase, numbers, &pace, width + 18);
        assert_eq!(named, format!("documents → disk  {expected}"));
    }

    #[test]
    fn the_line_says_what_is_known() {
        check(Phase::Snapshot, (0, 0), 0, 80, "300.0 MiB  1,200 files  1,000 unchanged");
        check(Phase::Snapshot, (0, 0), 4, 80, "300.0 MiB  1,200 files  25.0 MiB/s  1,000 unchanged");
        let all = "[==>       ] 25 %  0:12 left  300.0 MiB of 1.2 GiB  1,200 files  25.0 MiB/s";
        check(Phase::Restore, (4800, 1200 << 20), 4, 77, all);
        check(Phase::Restore, (4800, 1200 << 20), 4, 40, &all[..28]);
        let over = "[=========>] 99 %  300.0 MiB of 1.0 MiB  1,200 files  25.0 MiB/s  1,000 unchanged";
        check(Phase::Snapshot, (1000, 1 << 20), 4, 200, over);
        check(Phase::Catalogue, (2000, 0), 4, 80, "reading what is new in the vault:  1,200 of 2,000");
    }

    #[test]
    fn the_pace_forgets() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for second in 0..60 {
            pace.add(start + Duration::from_secs(second), Numbers { read: second * second, ..Numbers::default() });
        }
        assert_eq!(pace.0.len(), 9);
        assert_eq!(pace.per_second(|numbers| numbers.read), Some((59 * 59 - 51 * 51) / 8));
    }
}
