//! Progress on a terminal, and warnings.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle;
use vault::progress::Counters;
use vault::progress::Phase;
use vault::progress::Progress;

use crate::cli::interrupt;
use crate::cli::output;
use crate::cli::output::Style;
use crate::cli::table;
use crate::cli::units;

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(100);
/// What is done sooner than this is not worth a bar.
const PATIENCE: Duration = Duration::from_millis(400);
/// Speed and time left are taken from this much of the past.
const WINDOW: Duration = Duration::from_secs(8);
/// Columns of the bar itself.
const BAR_WIDTH: u64 = 10;

/// How the library's messages are shown.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Messages are JSON.
    pub json: bool,
    /// Details are shown.
    pub verbose: bool,
    /// A bar may be drawn, if there is a terminal.
    pub bar: bool,
}

/// Standard error while work goes on: a bar, and messages above it.
pub struct Screen {
    shared: Arc<Shared>,
    ticker: Option<thread::JoinHandle<()>>,
}

struct Shared {
    manner: Manner,
    color: bool,
    counters: Counters,
    stop: AtomicBool,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// What is being done; `None` while nothing is.
    phase: Option<Phase>,
    /// Counts the phases, so that each begins its measurements anew.
    round: u64,
    bar: Option<ProgressBar>,
    over: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints a line above the bar.
    fn say(&self, line: &str) {
        let bar = self.state().bar.clone();
        let print = || {
            let _ = writeln!(io::stderr(), "{line}"); // where nobody listens, nothing can be done about it
        };
        match bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Screen {
    /// Nothing is shown before something is to be said.
    pub fn new(manner: Manner) -> Self {
        let terminal = io::stderr().is_terminal();
        let shared = Arc::new(Shared {
            manner: Manner { bar: manner.bar && terminal && !manner.json, ..manner },
            color: terminal && output::colors(),
            counters: Counters::default(),
            stop: AtomicBool::new(false),
            state: Mutex::default(),
            ended: Condvar::new(),
        });
        let ticker = shared.manner.bar.then(|| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || tick(&shared))
        });
        Self { shared, ticker }
    }

    /// From now on, Ctrl-C lets the work end in good order.
    pub fn watch_interrupts(&self) {
        let shared = Arc::clone(&self.shared);
        interrupt::end_gently(move || {
            let first = !shared.stop.swap(true, Relaxed);
            if first && !shared.manner.json {
                shared.say("stopping ... (once more stops at once)");
            }
            first
        });
    }

    /// Waits so long, or until the work is to stop.
    pub fn waiter(&self) -> impl Fn(Duration) + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |time| {
            let begun = Instant::now();
            while let Some(left) = time.checked_sub(begun.elapsed())
                && !left.is_zero()
                && !shared.stop.load(Relaxed)
            {
                thread::sleep(left.min(TICK));
            }
        }
    }

    /// From now on, Ctrl-C lets the work end in good order, however often it is pressed: what was begun is undone.
    pub fn watch_interrupts_patiently(&self) {
        let shared = Arc::clone(&self.shared);
        interrupt::end_gently(move || {
            if !shared.stop.swap(true, Relaxed) {
                shared.say("stopping ...");
            }
            true
        });
    }

    /// Takes the bar away: the work is over, or something is to be asked.
    pub fn clear(&self) {
        let bar = {
            let mut state = self.shared.state();
            state.phase = None;
            state.bar.take()
        };
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
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
        let mut state = self.shared.state();
        state.phase = Some(phase);
        state.round += 1;
    }

    fn warn(&self, message: &str) {
        if self.shared.manner.json {
            self.shared.say(&serde_json::json!({ "warning": message }).to_string());
        } else {
            self.shared.say(&format!("{} {message}", output::paint(self.shared.color, Style::Warning, "warning:")));
        }
    }

    fn detail(&self, message: &str) {
        if self.shared.manner.verbose && !self.shared.manner.json {
            self.shared.say(message);
        }
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Relaxed)
    }
}

/// Draws the bar until the screen is dropped.
fn tick(shared: &Shared) {
    let mut pace = Pace::default();
    let mut round = 0;
    let mut busy_since = None;
    let mut state = shared.state();
    while !state.over {
        match state.phase {
            None => busy_since = None,
            Some(phase) => {
                let now = Instant::now();
                if state.round != round {
                    round = state.round;
                    pace = Pace::default();
                }
                let numbers = Numbers::of(&shared.counters);
                pace.add(now, numbers);
                if now - *busy_since.get_or_insert(now) >= PATIENCE {
                    let bar = state.bar.get_or_insert_with(new_bar);
                    bar.set_message(line(
                        phase,
                        numbers,
                        &pace,
                        output::terminal_width(io::stderr()).saturating_sub(3),
                    ));
                    bar.tick();
                }
            }
        }
        state = shared.ended.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    ProgressStyle::with_template("{spinner} {wide_msg}").map_or(bar.clone(), |style| bar.with_style(style))
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    files: u64,
    bytes: u64,
    unchanged: u64,
    read: u64,
    files_goal: u64,
    bytes_goal: u64,
}

impl Numbers {
    fn of(counters: &Counters) -> Self {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        Self {
            files: get(&counters.files),
            bytes: get(&counters.bytes),
            unchanged: get(&counters.files_unchanged),
            read: get(&counters.bytes_read),
            files_goal: get(&counters.files_goal),
            bytes_goal: get(&counters.bytes_goal),
        }
    }
}

/// How fast the work goes, by the last few seconds.
#[derive(Debug, Default)]
struct Pace(VecDeque<(Instant, Numbers)>);

impl Pace {
    fn add(&mut self, now: Instant, numbers: Numbers) {
        self.0.push_back((now, numbers));
        while self.0.front().is_some_and(|(then, _)| now - *then > WINDOW) {
            self.0.pop_front();
        }
    }

    /// What a counter gained in each second; `None` before that can be said.
    fn per_second(&self, counter: impl Fn(&Numbers) -> u64) -> Option<u64> {
        let ((first, before), (last, after)) = (self.0.front()?, self.0.back()?);
        let millis = u64::try_from((*last - *first).as_millis()).ok().filter(|&millis| millis >= 500)?;
        let gained = counter(after).saturating_sub(counter(before));
        Some((u128::from(gained) * 1000 / u128::from(millis)) as u64)
    }
}

/// What is known, the most wanted first; what does not fit into so many columns is left out.
fn line(phase: Phase, numbers: Numbers, pace: &Pace, width: usize) -> String {
    let parts = match phase {
        Phase::Catalogue if numbers.files_goal > 0 => vec![
            "reading what is new in the vault:".to_owned(),
            format!("{} of {}", units::count(numbers.files), units::count(numbers.files_goal)),
        ],
        Phase::Catalogue => vec!["reading what is new in the vault".to_owned()],
        Phase::Plan => vec!["looking up what is needed".to_owned()],
        Phase::Publish => vec!["writing the last of it".to_owned()],
        Phase::Snapshot | Phase::Restore | Phase::Check | Phase::Collect => measured(numbers, pace),
    };
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

/// `[=====>    ]  35 %`. A goal may be an estimate, so it is never reached before the work is over.
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
        assert_eq!(line(phase, numbers, &pace, width), expected);
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
