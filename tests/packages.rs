//! Parts of packages: they have the version and the schedule of the program, and everything that they name exists.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::run::Home;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_package_has_the_version_of_the_program() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        ("packaging/arch/PKGBUILD", format!("pkgver={version}")),
        ("packaging/homebrew/vault-backup.rb", format!("  url \"vault-{version}.tar.gz\"")),
        ("packaging/winget/vault.yaml", format!("PackageVersion: {version}")),
        ("packaging/winget/vault.locale.en-US.yaml", format!("PackageVersion: {version}")),
        ("packaging/winget/vault.installer.yaml", format!("PackageVersion: {version}")),
    ] {
        assert!(read(file).lines().any(|other| other == line), "{file}: {line}");
    }
}

/// The units in packages are those that the program itself installs, with the places of a package.
#[test]
#[cfg(target_os = "linux")]
fn the_units_of_packages_are_those_of_the_program() {
    let home = Home::new();
    home.configure("[vaults.disk]\npath = \"HOME/disk\"\n[sources.a]\npaths = [\"~/a\"]\n");
    let text = home.expect(0, &["schedule", "install", "--print", "--system"]);
    let (service, timer) = text.split_once("# vault-run.timer\n").unwrap();
    let settings = |text: &str| -> Vec<String> {
        let settings = text.lines().filter(|line| line.contains('=') && !line.starts_with('#'));
        let mut settings: Vec<String> =
            settings.filter(|line| !line.starts_with("ExecStart=")).map(str::to_owned).collect();
        settings.sort_unstable();
        settings
    };
    let own = ["ConditionPathExists=/etc/vault/vault.toml", "StateDirectory=vault", "StateDirectoryMode=0700"];
    let mut packaged = settings(&read("packaging/systemd/vault-run.service"));
    packaged.retain(|line| !own.contains(&line.as_str()));
    assert_eq!(packaged, settings(service));
    assert_eq!(settings(&read("packaging/systemd/vault-run.timer")), settings(timer));
    // The program accepts the command that it starts.
    let text = read("packaging/systemd/vault-run.service");
    let command = text.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/vault ")).unwrap();
    let (config, state) = (home.text(".config/vault/vault.toml"), home.text("state/vault"));
    let command = command.replace("/etc/vault/vault.toml", &config).replace("/var/lib/vault", &state);
    home.expect(0, &["init"]);
    home.expect(0, &command.split(' ').collect::<Vec<_>>());
}

#[test]
fn what_packages_are_made_of_is_there() {
    let text = read("Cargo.toml");
    let made = ["target/package/"];
    let named = text.split('"').filter(|word| word.starts_with("packaging/") || word.starts_with("docs/"));
    let mut count = 0;
    for path in named.filter(|word| !made.iter().any(|made| word.starts_with(made))) {
        let folder = root().join(path.rsplit_once('/').unwrap().0);
        assert!(fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()), "{path}");
        count += 1;
    }
    assert!(count >= 4, "{count}");
    for script in ["packaging/build.sh", "packaging/test.sh", "packaging/arch/PKGBUILD"] {
        match Command::new("bash").arg("-n").arg(root().join(script)).output() {
            Ok(output) => assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(_) => eprintln!("NOTICE: {script} was not read: bash is not here"),
        }
    }
}

/// If the script that installs the package in a fresh system cannot run, it says so, and that is no failure.
#[test]
fn a_trial_of_the_package_that_cannot_be_made_is_said() {
    if Command::new("bash").arg("--version").output().is_err() {
        eprintln!("skipped: bash is not here");
        return;
    }
    let home = Home::new();
    let mut script = Command::new("bash");
    script.arg(root().join("packaging/test.sh")).env("CARGO_TARGET_DIR", home.path("nothing"));
    let said = script.output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.status.success() && text.starts_with("skipped: the Debian package was not tried: there is none"),
        "{text}"
    );
}

/// Packages teach the shells to ask the program, with scripts that it prints.
#[test]
fn the_completions_of_packages_ask_the_program() {
    for file in [
        "packaging/build.sh",
        "packaging/arch/PKGBUILD",
        "packaging/homebrew/vault-backup.rb",
        "packaging/nix/flake.nix",
    ] {
        let text = read(file);
        let calls = ["vault completions ", "vault\" completions ", "vault\", \"completions\""];
        let mut lines = text.lines().filter(|line| calls.iter().any(|call| line.contains(call))).peekable();
        assert!(lines.peek().is_some(), "{file}");
        assert!(lines.all(|line| line.contains("--dynamic")), "{file}");
    }
}
