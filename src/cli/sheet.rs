//! The recovery sheet: a page with the recovery key, the vault that it opens, and instructions for a restore. It is
//! offered once, to a person at a terminal, when the key is made, and is printed or written to a file. A script is
//! never asked.

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;

use crate::id::SlotId;
use crate::seal::RecoveryKey;
use crate::service::delivery;
use crate::store::Delivery;
use crate::store::place::Place;
use zeroize::Zeroizing;

use crate::cli::again;
use crate::cli::ask;
use crate::cli::confirm;
use crate::cli::context;
use crate::cli::context::Context;
use crate::cli::context::current_folder;
use crate::cli::dates;
use crate::cli::error::chain;
use crate::cli::error::quoted;
use crate::cli::local;
use crate::cli::machine;
use crate::cli::machine::Here;
use crate::cli::machine::Machine;
use crate::cli::note;
use crate::cli::roots;
use crate::ownfile;

/// The default name of the file.
const FILE: &str = "vault-recovery-key.txt";
/// The number of attempts to name a file.
const TRIES: usize = 5;

/// Offers the page. A failure does not end the command, because the key was shown before.
pub(super) fn offer(context: &Context, place: &Place, key: &RecoveryKey, slot: Option<SlotId>) {
    if context.global.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return;
    }
    let text = text(context, place, key, slot);
    note(
        "
A page for your papers can be made of the recovery key: with what it opens, and
how the files are brought back if this computer and the password are lost.",
    );
    if has_printer() {
        if !confirm("Print that page now? [Y/n] ", true) {
            return later();
        }
        match print(&text) {
            Ok(()) => return note("It is sent to the printer."),
            Err(why) => note(&format!("It could not be printed: {why}.")),
        }
    }
    if !confirm("Write that page to a file, to be printed? [Y/n] ", true) {
        return later();
    }
    for _ in 0..TRIES {
        let default = Here.home().unwrap_or_default().join(FILE);
        let Some(typed) = ask(&format!("Into which file? [{}] ", default.display())) else { return note("") };
        let file = if typed.is_empty() { Ok(default) } else { named(&typed) };
        match file.and_then(|file| write(&file, place, &text).map(|()| file)) {
            Ok(file) => {
                note(&format!("Wrote {}", file.display()));
                return note("Only you can read it. Print it, then delete it: it opens the vault for anyone.");
            }
            Err(why) => again(&why),
        }
    }
    later();
}

fn later() {
    note("Another recovery key can be made at any time: vault key add --recovery-key");
}

/// The text of the page.
fn text(context: &Context, place: &Place, key: &RecoveryKey, slot: Option<SlotId>) -> Zeroizing<String> {
    let today = dates::shown(dates::now(), &context.zone);
    let slot = slot.map_or_else(String::new, |slot| format!("\n    (key slot {})", &slot.to_string()[..8]));
    let repo = quoted(&place.to_string());
    Zeroizing::new(format!(
        "\
RECOVERY KEY OF A VAULT

The vault (an encrypted backup):  {place}
Made on {today} by {who}

    {key}{slot}

This key opens the vault if the password is lost, for you and for anyone who
finds it. Keep this page with your papers, away from the computer and from the
disk with the vault.

To get the files back, also on another computer:
  1. Get the program vault, version {version} or later, and connect the place with
     the vault.
  2. See what is there. Where the password is asked for, type the key:
       vault list --repo {repo}
  3. Bring the newest state back into a new folder 'restored':
       vault restore latest --repo {repo} --to restored

The file RESTORE.txt in the vault's folder says more.
",
        place = place,
        who = context::user_at_host(),
        key = *key.to_text(),
        version = env!("CARGO_PKG_VERSION"),
    ))
}

/// Whether the system has a default printer.
fn has_printer() -> bool {
    let asked = machine::program("lpstat").arg("-d").env("LC_ALL", "C").stdin(Stdio::null()).output();
    asked.is_ok_and(|output| {
        let said = String::from_utf8_lossy(&output.stdout);
        output.status.success() && said.contains("default destination:")
    })
}

fn print(text: &str) -> Result<(), String> {
    let failed = |error: io::Error| chain(&error);
    let mut command = machine::program("lp");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    let written = child.stdin.take().map_or(Ok(()), |mut out| out.write_all(text.as_bytes()));
    let status = child.wait().map_err(failed)?;
    written.map_err(failed)?;
    if status.success() { Ok(()) } else { Err("lp failed".to_owned()) }
}

/// The path for a file name that a person typed.
fn named(typed: &str) -> Result<PathBuf, String> {
    let home = Here.home();
    let path = match (typed.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(typed),
    };
    let here = current_folder().map_err(|failure| failure.what)?;
    let path = roots::absolute(&here, &path);
    Ok(if path.is_dir() { path.join(FILE) } else { path })
}

/// Writes a new file that only this user can read. It refuses places where the key would accompany the vault.
fn write(file: &Path, place: &Place, text: &str) -> Result<(), String> {
    let folder = file.parent().unwrap_or(file);
    let failed = |error: &io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => format!("{} is there already", file.display()),
        io::ErrorKind::NotFound => format!("there is no folder {}", folder.display()),
        _ => format!("cannot write {}: {}", file.display(), chain(error)),
    };
    let real = fs::canonicalize(folder).map_err(|error| failed(&error))?;
    let of_vault = place.folder().and_then(|folder| fs::canonicalize(folder).ok());
    if of_vault.is_some_and(|vault| real.starts_with(vault)) || local::refuse_in_vault(&real, "a key").is_err() {
        return Err("in the vault's own folder the key would get to whoever gets the vault".to_owned());
    }
    if delivery::guess(&real) == Delivery::Synced {
        return Err("a program carries that folder to other machines, and the key with it".to_owned());
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(file).map_err(|error| failed(&error))?;
    ownfile::hand_over(file);
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_not_written_to_where_the_vault_goes() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        for name in ["vault/keys", "Dropbox", "papers"] {
            fs::create_dir_all(top.join(name)).unwrap();
        }
        let place = Place::Folder(top.join("vault"));
        let write = |name: &str| write(&top.join(name), &place, "key");
        assert!(write("vault/key.txt").unwrap_err().contains("own folder"));
        assert!(write("vault/keys/key.txt").unwrap_err().contains("own folder"));
        assert!(write("Dropbox/key.txt").unwrap_err().contains("other machines"));
        assert!(write("none/key.txt").unwrap_err().contains("no folder"));
        write("papers/key.txt").unwrap();
        assert!(write("papers/key.txt").unwrap_err().contains("there already"));
        assert_eq!(fs::read_to_string(top.join("papers/key.txt")).unwrap(), "key");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(top.join("papers/key.txt")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
