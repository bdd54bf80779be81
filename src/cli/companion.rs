//! RESTORE.txt, the text beside VAULT for anyone who has to get the files back. It is no part of the vault, and may be
//! deleted or added to. What is there must be a text that still says how.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;

use crate::store::dir::DirStore;
use crate::vault::Vault;

use crate::cli::error::Failure;
use crate::cli::error::chain;
use crate::ownfile;

/// The name of the file.
pub(super) const NAME: &str = "RESTORE.txt";
const TEXT: &str = include_str!("restore.txt");
/// The first and the last line of the text, in each version of it.
const ENDS: [&str; 2] =
    ["HOW TO GET THE FILES BACK", "This text holds no secret. It is not part of the vault and may be deleted."];
/// The length in bytes up to which a text with additions is read.
const LEN_MAX: u64 = 1 << 20;

/// Writes the text beside VAULT, unless something is there. It does not matter if it cannot be written.
pub(super) fn write(folder: &Path) {
    let _ = write_new(folder);
}

fn write_new(folder: &Path) -> io::Result<()> {
    let path = folder.join(NAME);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    file.write_all(TEXT.as_bytes())?;
    ownfile::hand_over(&path);
    Ok(())
}

/// The fault of the text in a vault's folder, if it has one. A text that is not there, or on another machine, has none.
pub(super) fn fault(vault: &Vault) -> Option<String> {
    fault_in(vault.store().folder()?)
}

fn fault_in(folder: &Path) -> Option<String> {
    let path = folder.join(NAME);
    let told = |what: &str| Some(what.to_owned());
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(chain(&error)),
        Ok(is) if !is.is_file() => return told("it is no file"),
        Ok(is) if is.len() > LEN_MAX => return told("it is far too long"),
        Ok(is) if is.len() == 0 => return told("it is empty"),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    if let Err(error) = File::open(&path).and_then(|file| file.take(LEN_MAX).read_to_end(&mut bytes)) {
        return Some(chain(&error));
    }
    let Ok(text) = String::from_utf8(bytes) else { return told("it is no text") };
    if text.contains(|letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t' | '\u{c}')) {
        return told("it is no text");
    }
    let says = |line: &str| text.lines().any(|other| other.trim() == line);
    if ENDS.into_iter().all(says) { None } else { told("a part of it is missing") }
}

/// Moves a damaged text aside, and writes it again.
///
/// # Errors
/// If the folder cannot be written.
pub(super) fn mend(vault: &Vault) -> Result<(), Failure> {
    let Some(folder) = vault.store().folder() else { return Ok(()) };
    mend_in(folder).map_err(|error| Failure::caused(format!("cannot write {}", folder.join(NAME).display()), &error))
}

fn mend_in(folder: &Path) -> io::Result<()> {
    let path = folder.join(NAME);
    let store = DirStore::open(folder).map_err(io::Error::other)?;
    let aside = store.move_aside(&path, NAME)?;
    write_new(folder).inspect_err(|error| {
        // The disk may be full: what was there stays, so that the next check warns of it again.
        if error.kind() != io::ErrorKind::AlreadyExists {
            let _ = fs::remove_file(&path);
            let _ = fs::rename(&aside, &path);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dir::QUARANTINE;

    #[test]
    fn a_text_that_no_longer_says_how_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        let path = top.join(NAME);
        assert_eq!(fault_in(top), None);
        write(top);
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), fault_in(top)), (TEXT, None));
        // Additions of a person, and another system's ends of lines.
        for sound in [format!("{TEXT}\nThe disk is Ann's.\n"), format!("Ann's disk\r\n{}", TEXT.replace('\n', "\r\n"))]
        {
            fs::write(&path, &sound).unwrap();
            assert_eq!(fault_in(top), None, "{sound}");
        }
        let mut flipped = TEXT.as_bytes().to_vec();
        flipped[700] ^= 0x80;
        let zeros = vec![0; TEXT.len()];
        let long = vec![b'x'; LEN_MAX as usize + 1];
        let (begin, end) = TEXT.as_bytes().split_at(TEXT.len() / 2);
        for (number, damaged) in [&[][..], &zeros, &flipped, begin, end, &long, b"text"].into_iter().enumerate() {
            fs::write(&path, damaged).unwrap();
            assert!(fault_in(top).is_some(), "{number}");
            mend_in(top).unwrap();
            assert_eq!((fs::read_to_string(&path).unwrap().as_str(), fault_in(top)), (TEXT, None));
            assert_eq!(fs::read_dir(top.join(QUARANTINE)).unwrap().count(), number + 1, "nothing is lost");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_moved_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (top, victim) = (folder.path(), folder.path().join("victim"));
        fs::write(&victim, "own").unwrap();
        std::os::unix::fs::symlink(&victim, top.join(NAME)).unwrap();
        assert_eq!(fault_in(top).as_deref(), Some("it is no file"));
        mend_in(top).unwrap();
        assert_eq!((fs::read_to_string(&victim).unwrap().as_str(), fault_in(top)), ("own", None));
        // Nothing is moved through a link.
        fs::remove_dir_all(top.join(QUARANTINE)).unwrap();
        fs::create_dir(top.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(top.join("elsewhere"), top.join(QUARANTINE)).unwrap();
        fs::write(top.join(NAME), "").unwrap();
        assert!(mend_in(top).is_err() && fault_in(top).is_some());
        assert_eq!(fs::read_dir(top.join("elsewhere")).unwrap().count(), 0);
    }
}
