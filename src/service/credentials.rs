//! Secrets of stores on other machines, from where a section `[credentials.NAME]` of the configuration says. They take
//! the place of variables of the environment, and are never shown.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;

use crate::failure::Failure;
use crate::ownfile;
use crate::service::config::{CredentialsConfig, CredentialsFrom};
use crate::service::machine::Machine;

/// The beginnings of the names of variables that a section may give: those of one kind of store each. Programs to run are
/// not among them.
const FAMILIES: [&str; 4] = ["AWS_", "AZURE_", "GOOGLE_", "VAULT_REST_"];
/// The most bytes of a file, or of what a command prints.
const LEN_MAX: u64 = 64 << 10;

fn family(name: &str) -> Option<&'static str> {
    FAMILIES.into_iter().find(|start| name.starts_with(start))
}

/// The variables for a store with these credentials. Of a kind of which they give any, none of the environment's counts, so
/// that parts of two accounts are never mixed.
pub fn variables(
    given: Option<&CredentialsConfig>,
    environment: BTreeMap<String, String>,
    machine: &dyn Machine,
) -> Result<BTreeMap<String, String>, Failure> {
    let Some(CredentialsConfig { name, from }) = given else { return Ok(environment) };
    let found = match from {
        CredentialsFrom::Command(command) => parse(name, &from_command(name, command, machine)?)?,
        CredentialsFrom::File(path) => parse(name, &from_file(name, path)?)?,
        CredentialsFrom::Environment(start) => {
            let found = environment.iter().filter_map(|(name, value)| Some((name.strip_prefix(start)?, value)));
            found
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .filter(|(name, _)| family(name).is_some())
                .collect()
        }
    };
    if found.is_empty() {
        return Err(failed(name, "there is nothing in them").hint(WANTED));
    }
    let mut all = environment;
    all.retain(|name, _| family(name).is_none_or(|own| found.keys().all(|name| family(name) != Some(own))));
    all.extend(found);
    Ok(all)
}

/// The advice for each way.
const WANTED: &str =
    "Give lines such as AWS_ACCESS_KEY_ID=…: variables that begin with AWS_, AZURE_, GOOGLE_ or VAULT_REST_";

fn failed(name: &str, what: &str) -> Failure {
    Failure::new(format!("the credentials '{name}' of the configuration cannot be used: {what}"))
}

/// The variables in a text of lines `NAME=VALUE`. An error shows nothing of the text.
fn parse(name: &str, text: &[u8]) -> Result<BTreeMap<String, String>, Failure> {
    let text = std::str::from_utf8(text).map_err(|_| failed(name, "they are no text in UTF-8"))?;
    let mut found = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        let Some((variable, value)) = pair.filter(|(variable, _)| family(variable).is_some()) else {
            return Err(failed(name, &format!("line {number} is no variable of a store")).hint(WANTED));
        };
        found.insert(variable.to_owned(), value.to_owned());
    }
    Ok(found)
}

fn from_file(name: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let caused = |error: io::Error| {
        Failure::caused(format!("cannot read the file {} of the credentials '{name}'", path.display()), &error)
    };
    let file = File::open(path).map_err(caused)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let found = file.metadata().map_err(caused)?;
        if found.is_file() && found.permissions().mode() & 0o077 != 0 {
            let what = format!("others may read the file {}", path.display());
            return Err(failed(name, &what).hint(format!("Take that from them: chmod 600 {}", path.display())));
        }
    }
    ownfile::bounded(file, LEN_MAX).map_err(caused)
}

fn from_command(name: &str, command: &OsStr, machine: &dyn Machine) -> Result<Vec<u8>, Failure> {
    let what = || format!("the command '{}' of the credentials '{name}' failed", command.display());
    let caused = |error: io::Error| Failure::caused(what(), &error);
    let mut child = machine.shell(command).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(caused)?;
    let printed = child.stdout.take().map_or_else(|| Ok(Vec::new()), |output| ownfile::bounded(output, LEN_MAX));
    let status = child.wait().map_err(caused)?;
    if !status.success() {
        return Err(Failure::new(format!("{}: {status}", what())));
    }
    printed.map_err(caused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_variables_of_stores_and_errors_show_none_of_them() {
        let found = parse("x", b"# a comment\n\nAWS_ACCESS_KEY_ID = A=B \nVAULT_REST_PASSWORD=p w\n").unwrap();
        let expected = [("AWS_ACCESS_KEY_ID", "A=B"), ("VAULT_REST_PASSWORD", "p w")];
        assert!(found.iter().map(|(name, value)| (&**name, &**value)).eq(expected));
        for text in [&b"hush"[..], b"AWS_ACCESS_KEY_ID=A\nHUSH=hush", b"VAULT_SSH=hush", b"AWS_\xff=hush"] {
            let error = parse("x", text).unwrap_err();
            assert!(error.what.contains("'x'") && !error.what.to_lowercase().contains("hush"), "{}", error.what);
        }
    }
}
