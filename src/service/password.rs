//! Passwords that need no prompt: from options, the environment, the configuration with its files and commands, and the
//! system's keyring; and this machine's device key. A caller that can ask a person does so if none of these has a
//! password.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use zeroize::Zeroizing;

use crate::engine::keys::DeviceKey;
use crate::failure::{Failure, quoted};
use crate::ownfile;
use crate::seal::Secret;
use crate::service::config::PasswordFrom;
use crate::service::machine::Machine;
use crate::text;

/// The maximum length in bytes of the file or command output whose first line is a password.
const INPUT_LEN_MAX: u64 = 64 << 10;

/// The sources of a password, in the order in which they are tried: the options, the variable, the variable with
/// `_FILE`, with `_COMMAND`, the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// `--password-file`.
    pub file: Option<&'a Path>,
    /// `--password-command`.
    pub command: Option<&'a OsStr>,
    /// The option's name without `-file` and `-command`.
    pub option: &'static str,
    /// The environment variable's name.
    pub variable: &'static str,
    /// The configured source.
    pub config: Option<&'a PasswordFrom>,
}

/// A password or device key.
pub struct Password {
    text: Zeroizing<Vec<u8>>,
    /// Whether it was typed, so that there is someone to ask.
    pub typed: bool,
    /// Whether it is this machine's device key.
    device: bool,
}

impl Password {
    /// The secret in the form that opens a vault. The vault itself recognizes a recovery key.
    pub fn secret(&self) -> Secret {
        if self.device { Secret::Raw(self.text.clone()) } else { Secret::Password(self.text.clone()) }
    }

    /// This machine's device key.
    pub fn device(key: &DeviceKey) -> Self {
        Self { text: key.secret().clone(), typed: false, device: true }
    }

    /// A password that was typed.
    pub fn typed(text: Zeroizing<Vec<u8>>) -> Self {
        Self { text, typed: true, device: false }
    }

    /// Whether both passwords are the same.
    pub fn is(&self, other: &Self) -> bool {
        self.device == other.device && self.text == other.text
    }

    /// The password for the environment of a child process of this program.
    pub fn for_child(&self) -> std::borrow::Cow<'_, OsStr> {
        crate::path::to_os(&self.text).unwrap_or_default()
    }

    /// A copy of the password.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { text: self.text.clone(), ..*self }
    }

    /// A password that was not typed.
    fn from_elsewhere(text: Zeroizing<Vec<u8>>) -> Self {
        Self { text, typed: false, device: false }
    }
}

/// The password from the options or the environment; `None` if they have none.
pub fn given(sources: Sources<'_>, machine: &dyn Machine) -> Result<Option<Password>, Failure> {
    Ok(from_options(sources, machine)?.map(Password::from_elsewhere))
}

/// The password from any source that needs no prompt.
pub fn unasked(sources: Sources<'_>, machine: &dyn Machine) -> Result<Option<Password>, Failure> {
    Ok(configured(sources, machine)?.map(Password::from_elsewhere))
}

fn configured(sources: Sources<'_>, machine: &dyn Machine) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    if let Some(text) = from_options(sources, machine)? {
        return Ok(Some(text));
    }
    let (text, from) = match sources.config {
        None => return Ok(None),
        Some(PasswordFrom::File(file)) => (from_file(file)?, "password-file"),
        Some(PasswordFrom::Command(command)) => (from_command(command, machine)?, "password-command"),
        Some(PasswordFrom::Keyring(name)) => (from_keyring(name, machine)?, "keyring"),
    };
    if text.is_empty() {
        return Err(Failure::new(format!("the password from {from} in the configuration is empty")));
    }
    Ok(Some(text))
}

fn from_options(sources: Sources<'_>, machine: &dyn Machine) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let Sources { option, variable, .. } = sources;
    let file_variable = format!("{variable}_FILE");
    let command_variable = format!("{variable}_COMMAND");
    let (text, from) = if let Some(file) = sources.file {
        (from_file(file)?, format!("--{option}-file"))
    } else if let Some(command) = sources.command {
        (from_command(command, machine)?, format!("--{option}-command"))
    } else if let Some(text) = machine.variable(variable) {
        (line_of(&Zeroizing::new(crate::path::from_os(&text))), variable.to_owned())
    } else if let Some(file) = machine.variable(&file_variable) {
        (from_file(Path::new(&file))?, file_variable)
    } else if let Some(command) = machine.variable(&command_variable) {
        (from_command(&command, machine)?, command_variable)
    } else {
        return Ok(None);
    };
    if text.is_empty() {
        return Err(Failure::new(format!("the password from {from} is empty")));
    }
    Ok(Some(text))
}

fn from_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed =
        |error: &io::Error| Failure::caused(format!("cannot read the password file {}", path.display()), error);
    let file = File::open(path).map_err(|error| failed(&error))?;
    first_line(file).map_err(|error| failed(&error))
}

fn from_command(command: &OsStr, machine: &dyn Machine) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let what = || format!("the password command '{}' failed", command.display());
    let failed = |error: io::Error| Failure::caused(what(), &error);
    let mut child = machine.shell(command).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let line = child.stdout.take().map_or_else(|| Ok(Zeroizing::default()), first_line);
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(Failure::new(format!("{}: {status}", what())));
    }
    line.map_err(failed)
}

/// The password for the vault of this name from the system's keyring.
fn from_keyring(name: &str, machine: &dyn Machine) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let (asked, args, store) = keyring(name)?;
    let hint = format!("Put it there with: {store}");
    let failed = |error: &io::Error| Failure::caused(format!("cannot ask the keyring with {asked}"), error);
    let child = machine.program(asked).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(format!("the keyring needs the program {asked}, which is not there"))
            .hint("Install it, or give password-file or password-command, or: vault key add --device"),
        _ => failed(&error),
    })?;
    let line = child.stdout.take().map_or_else(|| Ok(Zeroizing::default()), first_line);
    let status = child.wait().map_err(|error| failed(&error))?;
    let line = line.map_err(|error| failed(&error))?;
    if !status.success() || line.is_empty() {
        return Err(Failure::new(format!("the keyring has no password for the vault '{name}'")).hint(hint));
    }
    Ok(line)
}

/// The program that queries the keyring, its arguments, and the command with which a person stores a password there.
fn keyring(name: &str) -> Result<(&'static str, Vec<&str>, String), Failure> {
    let shown = quoted(name);
    if cfg!(target_os = "macos") {
        let store = format!("security add-generic-password -s vault -a {shown} -w");
        Ok(("security", vec!["find-generic-password", "-s", "vault", "-a", name, "-w"], store))
    } else if cfg!(windows) {
        Err(Failure::new("vault cannot ask the keyring of Windows")
            .hint("Use a key of this machine instead: vault key add --device"))
    } else {
        let store = format!("secret-tool store --label='vault {name}' service vault vault {shown}");
        Ok(("secret-tool", vec!["lookup", "service", "vault", "vault", name], store))
    }
}

fn first_line(input: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    ownfile::fill(input, INPUT_LEN_MAX, &mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => io::Error::other("it is too long for a password"),
        _ => error,
    })?;
    Ok(line_of(text::content(&bytes).map_err(io::Error::other)?))
}

/// The first line without its end, the same for all sources. It also excludes a byte order mark, which some editors put
/// at the start of a file.
fn line_of(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Zeroizing::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::service::machine::tests::Still;

    fn check(
        file: Option<&Path>,
        command: Option<&str>,
        environment: &[(&str, &str)],
        expected: Result<Option<&str>, &str>,
    ) {
        check_with(file, command, environment, None, expected);
    }

    fn check_with(
        file: Option<&Path>,
        command: Option<&str>,
        environment: &[(&str, &str)],
        config: Option<&PasswordFrom>,
        expected: Result<Option<&str>, &str>,
    ) {
        let sources =
            Sources { file, command: command.map(OsStr::new), option: "password", variable: "VAULT_PASSWORD", config };
        match (unasked(sources, &Still(environment)), expected) {
            (Ok(found), Ok(expected)) => {
                let text = found.as_ref().map(|found| String::from_utf8_lossy(&found.text).into_owned());
                assert_eq!(text.as_deref(), expected);
            }
            (Err(failure), Err(expected)) => assert!(failure.what.contains(expected), "{}", failure.what),
            (found, expected) => panic!("{:?} instead of {expected:?}", found.map(|_| ()).map_err(|f| f.what)),
        }
    }

    #[test]
    fn sources_are_asked_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "from file\r\nmore\n").unwrap();
        let shown = path.to_str().unwrap();
        let all = [("VAULT_PASSWORD", "direct"), ("VAULT_PASSWORD_FILE", shown), ("VAULT_PASSWORD_COMMAND", "echo c")];
        check(Some(&path), Some("echo c"), &all, Ok(Some("from file")));
        check(None, Some("printf 'a b\\nc'"), &all, Ok(Some("a b")));
        check(None, None, &all, Ok(Some("direct")));
        check(None, None, &[("VAULT_PASSWORD", "direct\r\n")], Ok(Some("direct")));
        std::fs::write(&path, "\u{feff}from file\n").unwrap();
        check(Some(&path), None, &[], Ok(Some("from file")));
        std::fs::write(&path, b"\xff\xfex\0").unwrap();
        check(Some(&path), None, &[], Err("cannot read the password file"));
        std::fs::write(&path, "from file\r\nmore\n").unwrap();
        check(None, None, &all[1..], Ok(Some("from file")));
        check(None, None, &all[2..], Ok(Some("c")));
        check(None, None, &[], Ok(None));
    }

    #[test]
    fn a_line_end_is_no_part_of_a_password_wherever_it_comes_from() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for (given, expected) in [
            ("x\n", "x"),
            ("x\r\n", "x"),
            ("x", "x"),
            ("x \n", "x "),
            ("a\nb\n", "a"),
            ("\u{feff}x\n", "x"),
            ("x\r", "x"),
        ] {
            std::fs::write(&path, given).unwrap();
            check(Some(&path), None, &[], Ok(Some(expected)));
            check(None, Some(&format!("cat '{}'", path.display())), &[], Ok(Some(expected)));
            check(None, None, &[("VAULT_PASSWORD", given)], Ok(Some(expected)));
        }
        check(None, None, &[("VAULT_PASSWORD", "\n")], Err("VAULT_PASSWORD is empty"));
    }

    #[test]
    fn the_configuration_comes_after_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "from file\n").unwrap();
        let file = PasswordFrom::File(path);
        check_with(None, None, &[("VAULT_PASSWORD", "direct")], Some(&file), Ok(Some("direct")));
        check_with(None, None, &[], Some(&file), Ok(Some("from file")));
        check_with(None, None, &[], Some(&PasswordFrom::Command("echo c".into())), Ok(Some("c")));
        check_with(None, None, &[], Some(&PasswordFrom::Command("true".into())), Err("in the configuration is empty"));
    }

    #[test]
    fn bad_sources_are_named() {
        check(None, None, &[("VAULT_PASSWORD", "")], Err("VAULT_PASSWORD is empty"));
        check(Some(Path::new("/nowhere/at/all")), None, &[], Err("/nowhere/at/all"));
        check(None, Some("exit 3"), &[], Err("'exit 3' failed: exit status: 3"));
        check(None, Some("true"), &[], Err("--password-command is empty"));
    }
}
