//! What is a folder or file of this machine, and what only looks like one: an address of another machine is never made a folder.

use std::path::Path;

use crate::store::dir::DirStore;
use crate::store::place::Address;
use crate::store::place::FORMS;
use crate::store::place::Place;
use crate::store::{Kind, ObjectKey, Store, StoreError};

use crate::failure::Failure;
use crate::failure::quoted;

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

/// Whether there is a vault in this folder (or what is left of one).
pub fn has_vault_in(folder: &Path) -> Result<bool, Failure> {
    match DirStore::open(folder) {
        Ok(store) => Ok(holds_vault(&store)?),
        Err(StoreError::Gone { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether there is a vault in a store, or what is left of one.
pub fn holds_vault(store: &dyn Store) -> Result<bool, StoreError> {
    match store.len(&ObjectKey::Vault) {
        Ok(_) => Ok(true),
        Err(error) if error.is_of_whole() => Err(error),
        // It is missing, or no file: the key slots tell.
        Err(_) => {
            let mut found = false;
            store.list(Kind::Key, &mut |_| found = true)?;
            Ok(found)
        }
    }
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
    let failure = Failure::usage(format!(
        "{} looks like an address of another machine, and is none that vault knows",
        quoted(text)
    ));
    let folder = quoted(&format!("./{text}"));
    failure.hint(match meant(text) {
        Some(address) => {
            format!("Write it as: {}. If a folder really has this name: {folder}", quoted(&address.to_string()))
        }
        None => format!("Known are: {}. If a folder really has this name: {folder}", FORMS.join(", ")),
    })
}

/// The address that other programs write like this.
fn meant(text: &str) -> Option<Address> {
    let by_ssh = |text: &str| {
        // Not one with a password in front of the host.
        let (host, path) = text.split_once(':').filter(|(host, path)| host.contains('@') || !path.contains('@'))?;
        let slash = if path.starts_with('/') { "" } else { "/~/" };
        Some(format!("sftp://{host}{slash}{}", path.trim_start_matches("~/")))
    };
    let written = if let Some(rest) = text.strip_prefix("sftp:") {
        by_ssh(rest)
    } else if let Some(rest) = text.strip_prefix("ssh://") {
        Some(format!("sftp://{rest}"))
    } else if let Some(rest) = text.strip_prefix("rest:") {
        Some(format!("rest+{rest}"))
    } else if let Some(rest) = text.strip_prefix("s3:") {
        let (scheme, rest) = rest.split_once("://").unwrap_or(("https", rest));
        match rest.split_once('/') {
            None => Some(format!("s3://{rest}")),
            Some(("s3.amazonaws.com", below)) => Some(format!("s3://{below}")),
            Some((host, below)) if scheme == "http" => Some(format!("s3+http://{host}/{below}")),
            Some((host, below)) => Some(format!("s3://{below}?endpoint=https://{host}")),
        }
    } else if text.contains("://") || matches!(text.split_once(':'), Some(("azure" | "b2" | "gs" | "swift", _))) {
        // Of the last ones restic alone knows what they are.
        None
    } else {
        by_ssh(text)
    };
    Address::parse(&written?)?.ok()
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

    #[test]
    fn what_other_programs_write_is_understood() {
        for (text, expected) in [
            ("sftp:me@nas:/srv/vault", Some("sftp://me@nas/srv/vault")),
            ("sftp:nas:vault", Some("sftp://nas/~/vault")),
            ("me@nas:/srv/vault", Some("sftp://me@nas/srv/vault")),
            ("nas:~/vault", Some("sftp://nas/~/vault")),
            ("ssh://me@nas:2222/srv", Some("sftp://me@nas:2222/srv")),
            ("s3:bucket", Some("s3://bucket")),
            ("s3:s3.amazonaws.com/bucket/a", Some("s3://bucket/a")),
            ("s3:https://host:9000/bucket/a", Some("s3://bucket/a?endpoint=https://host:9000")),
            ("s3:http://nas:9000/bucket", Some("s3+http://nas:9000/bucket")),
            ("s3:host/bucket", Some("s3://bucket?endpoint=https://host")),
            ("rest:https://host:8000/a", Some("rest+https://host:8000/a")),
            ("s4://bucket", None),
            ("b2:bucket:path", None),
            ("sftp:me:secret@nas:/x", None),
        ] {
            assert_eq!(meant(text).map(|address| address.to_string()).as_deref(), expected, "{text}");
        }
    }

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
