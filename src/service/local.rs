//! Tells local files and folders from addresses of other machines, so that an address never becomes a folder, and the
//! folders of vaults from all others, so that nothing but a vault's own objects is written into them.

use std::fs;
use std::path::Path;

use crate::engine::restore::vault_around;
use crate::store::dir::DirStore;
use crate::store::place::Address;
use crate::store::place::FORMS;
use crate::store::place::Place;
use crate::store::{Kind, ObjectKey, Store, StoreError};

use crate::failure::Failure;
use crate::failure::quoted;

/// Whether a text names something on another machine in the notation of other programs: `scheme://…`, `service:…`,
/// `user@host:path`, `host:path`, `\\host\share`. A path that begins with `/`, `./`, `../` or `~` never does.
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

/// The address of a store on another machine; `None` if the text does not begin like one.
///
/// # Errors
/// A usage error, if the text begins like an address but is not a valid one.
pub fn address(path: &Path) -> Result<Option<Address>, Failure> {
    let Some(parsed) = path.to_str().and_then(Address::parse) else { return Ok(None) };
    // The error does not show the text if it contains a secret.
    parsed.map(Some).map_err(|error| Failure::usage(error.to_string()).hint(error.hint()))
}

/// Whether a place, or the folder that it would be created in, exists as far as this machine can tell. An address
/// counts as existing.
pub fn is_there(place: &Place) -> bool {
    place.folder().is_none_or(|folder| folder.exists() || folder.parent().is_some_and(Path::is_dir))
}

/// Whether there is a vault in this folder, or the remains of one.
pub fn has_vault_in(folder: &Path) -> Result<bool, Failure> {
    match DirStore::open(folder) {
        Ok(store) => Ok(holds_vault(&store)?),
        Err(StoreError::Gone { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether there is a vault in a store, or the remains of one.
pub fn holds_vault(store: &dyn Store) -> Result<bool, StoreError> {
    match store.len(&ObjectKey::Vault) {
        Ok(_) => Ok(true),
        Err(error) if error.is_of_whole() => Err(error),
        // The object is missing or not a file, so the key slots decide.
        Err(_) => {
            let mut found = false;
            store.list(Kind::Key, &mut |_| found = true)?;
            Ok(found)
        }
    }
}

/// Refuses an address of another machine, a `-`, or a `~` or `$HOME` that the shell did not replace, where a path of this
/// machine is expected. `what` names the expected thing in the message.
///
/// # Errors
/// A usage error with a hint at the correct form.
pub fn refuse_remote(path: &Path, what: &str) -> Result<(), Failure> {
    let text = path.display().to_string();
    let unread = [("~", "$HOME"), ("$HOME", "~"), ("${HOME}", "~")];
    if let Some((start, other)) = unread.iter().find(|(start, _)| cfg!(unix) && text.starts_with(start)) {
        return Err(Failure::usage(format!("{}: the shell did not replace the {start}", quoted(&text)))
            .hint(format!("Write {other} instead. If it really has this name: {}", quoted(&format!("./{text}")))));
    }
    if text == "-" {
        return Err(Failure::usage(format!("'-' is no place for {what}")).hint("If it really has this name: ./-"));
    }
    match path.to_str().filter(|text| looks_remote(text)) {
        None => Ok(()),
        Some(text) => Err(remote(text, what)),
    }
}

/// Refuses a file or folder that would lie in the folder of a vault, or be one: it would go wherever the vault goes, and
/// end with it. `what` names the thing in the message.
///
/// # Errors
/// If there is a vault around it, through whatever link.
pub fn refuse_in_vault(path: &Path, what: &str) -> Result<(), Failure> {
    let Some(vault) = vault_around(path) else { return Ok(()) };
    Err(Failure::new(format!("{} is a vault, and {what} does not go into a vault", vault.display()))
        .hint("Choose another folder."))
}

/// Refuses a place of a vault, or of a mirror of one, inside the folder of another vault. `what` names it in the message.
///
/// # Errors
/// If there is a vault around it, through whatever link.
pub fn refuse_around(place: &Place, what: &str) -> Result<(), Failure> {
    let Some(folder) = place.folder() else { return Ok(()) };
    // The folder itself may be a vault already.
    let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    real.parent().map_or(Ok(()), |above| refuse_in_vault(above, what))
}

/// The failure for a text that names a vault and looks like an address, but not one of a kind that vault knows.
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
        // A text with a password before the host is excluded.
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
        // Only restic knows what the last of these mean.
        None
    } else {
        by_ssh(text)
    };
    Address::parse(&written?)?.ok()
}

/// The failure for an address of another machine.
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
        for text in ["~", "~/x", "~user/x", "-"] {
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
