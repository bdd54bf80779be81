//! What is a folder or file of this machine, and what only looks like one: an address of another machine is never made a folder.

use std::path::Path;

use vault::store::place::Address;
use vault::store::place::FORMS;
use vault::store::place::Place;

use crate::cli::error::Failure;
use crate::cli::error::quoted;

/// Whether a text names something on another machine, as other programs write it: `scheme://…`, `service:…`, `user@host:path`,
/// `host:path`, `\\host\share`. A path that begins with `/`, `./`, `../` or `~` never does.
pub fn looks_remote(text: &str) -> bool {
    if cfg!(windows) {
        let is_drive = text.as_bytes().get(1) == Some(&b':') && text.as_bytes()[0].is_ascii_alphabetic();
        return !is_drive
            && !text.starts_with(['/', '\\', '.'])
            && text.split(['/', '\\']).next().unwrap_or("").contains(':');
    }
    if text.starts_with("\\\\") {
        return true;
    }
    let first = text.split('/').next().unwrap_or_default();
    !first.starts_with(['.', '~']) && first.contains(':')
}

/// The address of a store on another machine that a text is, if it begins like one.
///
/// # Errors
/// A mistake of usage, if it begins like one and is none.
pub fn address(path: &Path) -> Result<Option<Address>, Failure> {
    let Some(parsed) = path.to_str().and_then(Address::parse) else { return Ok(None) };
    // The text is not shown if there is a secret in it.
    parsed.map(Some).map_err(|error| Failure::usage(error.to_string()).hint(error.hint()))
}

/// Whether a place, or the folder that it would be made in, is there as far as this machine can tell.
pub fn is_there(place: &Place) -> bool {
    place.folder().is_none_or(|folder| folder.exists() || folder.parent().is_some_and(Path::is_dir))
}

/// Refuses what looks like an address of another machine, or like a home folder that the shell has not put in, wherever a path
/// of this one is expected. `what` says what it is to be.
///
/// # Errors
/// A mistake of usage, with the way out.
pub fn refuse_remote(path: &Path, what: &str) -> Result<(), Failure> {
    if cfg!(unix) && path.as_os_str().as_encoded_bytes().starts_with(b"~") {
        let text = path.display().to_string();
        return Err(Failure::usage(format!("{}: the shell did not replace the ~", quoted(&text)))
            .hint(format!("Write $HOME instead. If it really has this name: {}", quoted(&format!("./{text}")))));
    }
    match path.to_str().filter(|text| looks_remote(text)) {
        None => Ok(()),
        Some(text) => Err(remote(text, what)),
    }
}

/// What to say of what looks like an address where a vault is named, and is none that vault knows.
pub fn unknown_address(text: &str) -> Failure {
    if text.starts_with("file://") {
        return remote(text, "a vault");
    }
    Failure::usage(format!("{} looks like an address of another machine, and is none that vault knows", quoted(text)))
        .hint(format!(
            "Known are: {}. If a folder really has this name: {}",
            FORMS.join(", "),
            quoted(&format!("./{text}"))
        ))
}

/// What to say of an address of another machine.
pub fn remote(text: &str, what: &str) -> Failure {
    let shown = quoted(text);
    if let Some(path) = text.strip_prefix("file://") {
        return Failure::usage(format!("{shown} is no path: {what} is written without file://"))
            .hint(format!("Write it as: {}", quoted(path)));
    }
    Failure::usage(format!("{shown} looks like an address of another machine, and {what} must lie on this one")).hint(
        format!(
            "Mount it first, or let a sync client carry the folder away. If a folder really has this name: {}",
            quoted(&format!("./{text}"))
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn addresses_are_told_from_paths() {
        for text in [
            "sftp:user@nas:/backup",
            "sftp://user@nas/backup",
            "s3:bucket/path",
            "s3://bucket",
            "s3:https://host/bucket",
            "rclone:remote:path",
            "rest:http://host:8000/",
            "rest+https://host/",
            "ssh://host/path",
            "user@host:path",
            "host:path",
            "host:",
            "b2:bucket",
            "gs:bucket:/",
            "azure:container:/",
            "swift:container:/",
            "webdav://host/dav",
            "webdavs://host/dav",
            "smb://host/share",
            "nfs://host/export",
            "http://host",
            "file:///home/me",
            "\\\\host\\share",
        ] {
            assert!(looks_remote(text), "{text}");
            assert!(refuse_remote(Path::new(text), "it").is_err(), "{text}");
        }
        for text in ["~", "~/x", "~user/x"] {
            assert!(refuse_remote(Path::new(text), "it").is_err(), "{text}");
        }
        for text in ["/a:b/c", "./s3:x", "../s3:x", "~/s3:x", "backup", "a/b:c", "a b", "", ".", "//host/share", "a\\b"]
        {
            assert!(!looks_remote(text), "{text}");
        }
    }

    #[cfg(windows)]
    #[test]
    fn drives_are_paths() {
        assert!(!looks_remote("C:\\x") && !looks_remote("c:/x") && !looks_remote("\\\\host\\share"));
        assert!(looks_remote("s3:bucket") && looks_remote("sftp://host"));
    }
}
