//! The tree of snapshots for a mount or a share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use crate::mount::Serving;
use crate::mount::ServingOptions;
use crate::mount::Tree;
use crate::mount::TreeOptions;
use crate::path::Shown;
use crate::progress::Progress;
use crate::read::View;
use crate::tree::FileKind;
use crate::tree::Time;
use crate::vault::SnapshotInfo;
use jiff::tz::TimeZone;

use crate::cli::args::MountArgs;
use crate::cli::context::Context;
use crate::cli::dates;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::chain;
use crate::cli::select;
use crate::cli::select::Aim;
use crate::cli::select::Filter;
use crate::cli::select::Spot;
use crate::cli::select::Wanted;

/// The size in bytes of the cache of listings.
const LISTINGS: usize = 12 << 20;

/// A tree that is ready to be mounted.
pub(super) struct Laid {
    /// The tree, ready to answer requests.
    pub serving: Arc<Serving>,
    /// The number of its snapshots.
    pub count: usize,
    /// The file for the messages of a mount in the background.
    pub log: PathBuf,
    told: Arc<Mutex<Vec<String>>>,
}

impl Laid {
    /// Reports what could not be read since the last call.
    pub(super) fn tell(&self, context: &Context) {
        for message in std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner)) {
            context.screen.warn(&message);
        }
    }

    /// The program's exit code after the mount.
    pub(super) fn exit(&self) -> Exit {
        match (self.serving.has_panicked(), self.serving.damaged(), self.serving.late()) {
            (true, ..) => Exit::Panic,
            (_, 0, 0) => Exit::Done,
            (_, 0, _) => Exit::Skipped,
            _ => Exit::Damage,
        }
    }
}

/// Opens the vault, and prepares the tree of all snapshots that pass the filter, or of a folder in one of them. `leave`
/// ends the sentence of `README.txt` that begins with "To leave,".
pub(super) fn lay(context: &Context, args: &MountArgs, wanted: Option<&Wanted>, leave: &str) -> Result<Laid, Failure> {
    let (vault, _) = context.open()?;
    let log = vault.state().join("mount.log");
    let snapshots = vault.snapshots();
    let filter = Filter::from(&args.filter);
    let aim = match wanted {
        Some(wanted) => {
            let among = select::among(context, &vault, &snapshots, filter.clone());
            let info = select::ending(context, wanted.find(&among, Aim::Read, &context.screen)?).clone();
            let spot = Spot::of(among, (wanted, Aim::Read), info);
            if spot.entry()?.kind != FileKind::Directory {
                return Err(Failure::new(format!("{} is not a folder", Shown(&spot.path)))
                    .hint("Only folders can be mounted. A file is written out with: vault cat SNAPSHOT:PATH"));
            }
            Some((spot.info.id, spot.path))
        }
        None if filter.is_chosen() && !snapshots.iter().any(|info| filter.matches(info)) => {
            return Err(filter.none_of(&snapshots));
        }
        None => None,
    };
    let cache = usize::try_from(args.cache).unwrap_or(usize::MAX);
    let view = View::new(Arc::new(vault), cache, &context.screen)?;
    context.screen.clear();
    let zone = context.zone.clone();
    let is_all = aim.is_none();
    let options = TreeOptions {
        dates: Box::new(move |time| name_of(time, &zone)),
        readme: readme(leave),
        listings: LISTINGS,
        // A tree of a single snapshot shows that snapshot, even if the filter would exclude it.
        shown: Box::new(move |info: &SnapshotInfo| !is_all || filter.matches(info)),
    };
    let mut tree = Tree::new(Arc::new(view), options);
    if let Some((id, path)) = &aim {
        let shown = format!("{}:{}", id.short(), Shown(path));
        let only = tree.only(id, path);
        let only = only.map_err(|error| Failure::caused(format!("cannot read {shown}"), &error))?;
        tree = only.ok_or_else(|| {
            Failure::new(format!("there is no folder {shown}")).hint("See what is in it with: vault ls SNAPSHOT")
        })?;
    }
    let count = tree.count();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let report = {
        let told = Arc::clone(&told);
        move |at: &str, error: &crate::vault::ReadError| {
            let next = if error.is_damage() { "; what to do: vault doctor" } else { "" };
            told.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(format!("cannot read {at}: {}{next}", chain(error)));
        }
    };
    let begun = Instant::now();
    let serving =
        ServingOptions { renew: args.renew, now: Box::new(move || begun.elapsed()), report: Box::new(report) };
    let serving = Arc::new(Serving::new(Arc::new(tree), serving));
    Ok(Laid { serving, count, log, told })
}

/// The name of a snapshot's folder: local date and minute, without a colon, which other systems do not allow in names.
fn name_of(time: Time, zone: &TimeZone) -> String {
    dates::shown(time, zone).replace(':', ".")
}

fn readme(leave: &str) -> String {
    format!(
        "This is a vault, mounted to be looked into. Nothing here can be changed.\n\
         \n\
         SOURCE/DATE/     a snapshot of a source, by the time when it was taken\n\
         SOURCE/latest    the last one\n\
         all/ID           each snapshot by its id\n\
         \n\
         Every folder in a snapshot also has a folder .versions, which is not listed.\n\
         In it lie the versions of each file that is or was there:\n\
         \n\
             ls .versions/letter.odt/\n\
         \n\
         To bring something back, copy it. To leave, {leave}"
    )
}
