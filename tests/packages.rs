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
    // Packages install the manual, too.
    let own = [
        "ConditionPathExists=/etc/vault/vault.toml",
        "Documentation=man:vault-run(1)",
        "StateDirectory=vault",
        "StateDirectoryMode=0700",
    ];
    let packaged = |file: &str| -> Vec<String> {
        let mut packaged = settings(&read(file));
        packaged.retain(|line| !own.contains(&line.as_str()));
        packaged
    };
    assert_eq!(packaged("packaging/systemd/vault-run.service"), settings(service));
    assert_eq!(packaged("packaging/systemd/vault-run.timer"), settings(timer));
    // The program accepts the command that it starts.
    let text = read("packaging/systemd/vault-run.service");
    let command = text.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/vault ")).unwrap();
    let (config, state) = (home.text(".config/vault/vault.toml"), home.text("state/vault"));
    let command = command.replace("/etc/vault/vault.toml", &config).replace("/var/lib/vault", &state);
    home.expect(0, &["init"]);
    home.expect(0, &command.split(' ').collect::<Vec<_>>());
}

/// The files of a package: what a line of its list in Cargo.toml takes, and where it goes.
fn lists() -> [Vec<(String, String)>; 2] {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let metadata = &manifest["package"]["metadata"];
    let pair = |source: &toml::Value, goes: &toml::Value| {
        let goes = goes.as_str().unwrap().trim_start_matches('/').to_owned();
        (source.as_str().unwrap().to_owned(), goes)
    };
    let lines = |package: &str| metadata[package]["assets"].as_array().unwrap().clone();
    let mut deb: Vec<_> = lines("deb").iter().map(|line| pair(&line[0], &line[1])).collect();
    // cargo-deb takes the units from the folder that is named to it, for scripts that end them with the package.
    let units = metadata["deb"]["maintainer-scripts"].as_str().unwrap();
    deb.push((format!("{units}/*"), "usr/lib/systemd/system/".to_owned()));
    [deb, lines("generate-rpm").iter().map(|line| pair(&line["source"], &line["dest"])).collect()]
}

/// The files below a folder that a line of a list names: one, or those whose names have what stands around the star.
fn named(folder: &Path, source: &str) -> Vec<String> {
    let (parent, name) = source.rsplit_once('/').unwrap_or((".", source));
    let (start, end) = name.split_once('*').unwrap_or((name, ""));
    let mut found: Vec<String> = fs::read_dir(folder.join(parent))
        .unwrap_or_else(|error| panic!("{source}: {error}"))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|file| if name.contains('*') { file.starts_with(start) && file.ends_with(end) } else { file == name })
        .collect();
    found.sort_unstable();
    found
}

/// Both lists have the same files. Only the names that the rules of the systems give differ: the folder of zsh's
/// completions, the log of changes and the license.
#[test]
fn both_packages_have_the_same_files() {
    let [deb, rpm] = lists();
    let as_rpm = |goes: String| {
        let goes = goes.replace("vendor-completions", "site-functions");
        goes.replace("vault-backup/changelog", "vault-backup/CHANGELOG.md")
    };
    let mut expected: Vec<_> = deb.into_iter().map(|(source, goes)| (source, as_rpm(goes))).collect();
    expected.push(("LICENSE".to_owned(), "usr/share/licenses/vault-backup/LICENSE".to_owned()));
    let sorted = |mut list: Vec<(String, String)>| {
        list.sort_unstable();
        list
    };
    assert_eq!(sorted(expected), sorted(rpm));
}

/// `packaging/build.sh`, run with a program that is there already, makes every file that the lists name and that is not
/// one of the project; each manual page and each completion that the program prints is in the packages and the tarball.
#[test]
#[cfg(target_os = "linux")]
fn every_manual_page_and_completion_is_packed() {
    if Command::new("bash").arg("--version").output().is_err() {
        eprintln!("skipped: bash is not here");
        return;
    }
    let home = Home::new();
    let project = home.path("project");
    for folder in ["packaging/systemd", "docs/images", "tests"] {
        fs::create_dir_all(project.join(folder)).unwrap();
    }
    let names = |folder: &str, end: &str| -> Vec<String> {
        named(root(), &format!("{folder}/*.{end}")).into_iter().map(|name| format!("{folder}/{name}")).collect()
    };
    let pages = [names("docs", "md"), names("docs/images", "png")].concat();
    let files = ["Cargo.toml", "README.md", "CHANGELOG.md", "SECURITY.md", "SPEC.md", "LICENSE", "tests/reader.py"];
    let units = ["packaging/systemd/vault-run.service", "packaging/systemd/vault-run.timer", "packaging/build.sh"];
    for file in files.into_iter().chain(units).map(str::to_owned).chain(pages) {
        fs::copy(root().join(&file), project.join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    // There is no cargo, which would make packages; and the program is called by a small one, which is packed quickly.
    home.program("cargo", "exit 1");
    home.program("vault", &format!("exec '{}' \"$@\"", env!("CARGO_BIN_EXE_vault")));
    let path = format!("{}:{}", home.text("bin"), std::env::var("PATH").unwrap());
    let mut build = Command::new("bash");
    build.arg(project.join("packaging/build.sh")).env("PATH", path).env("VAULT_TRIAL", home.path("bin/vault"));
    let built = build.env_remove("CARGO_TARGET_DIR").env("SOURCE_DATE_EPOCH", "1").output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let pages = home.path("man");
    home.expect(0, &["man", pages.to_str().unwrap()]);
    let mut pages: Vec<String> = named(&pages, "*.1").into_iter().map(|page| format!("{page}.gz")).collect();
    pages.sort_unstable();
    assert!(pages.len() > 50, "{pages:?}");
    for list in lists() {
        for (source, goes) in &list {
            let found = named(&project, source);
            assert!(!found.is_empty(), "{source}");
            assert!(found.len() == 1 || goes.ends_with('/'), "{source}");
            if goes == "usr/share/man/man1/" {
                assert_eq!(found, pages);
            }
        }
        let of_shells = list.iter().filter(|(source, _)| source.starts_with("target/stage/completions/")).count();
        assert_eq!(of_shells, named(&project, "target/stage/completions/*").len());
    }
    for (shell, file) in [("bash", "vault.bash"), ("zsh", "_vault"), ("fish", "vault.fish")] {
        let printed = home.expect(0, &["completions", "--dynamic", shell]);
        assert_eq!(fs::read_to_string(project.join("target/stage/completions").join(file)).unwrap(), printed);
    }
    let archive = named(&project, "target/dist/*-trial.tar.gz").pop().unwrap();
    let listed = Command::new("tar").arg("-tzf").arg(project.join("target/dist").join(&archive)).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let name = archive.strip_suffix(".tar.gz").unwrap();
    for page in pages {
        assert!(listed.contains(&format!("{name}/man/{page}\n")), "{page}");
    }
    for (source, _) in lists().into_iter().flatten() {
        let source = source.trim_start_matches("target/stage/").replace("packaging/", "").replace("tests/", "");
        let start = format!("{name}/{}", source.split('*').next().unwrap());
        assert!(listed.lines().any(|line| line.starts_with(&start)), "{source}");
    }
    let sums = home.read("project/target/dist/SHA256SUMS");
    assert!(sums.lines().count() == 1 && sums.ends_with(&format!("  {archive}\n")), "{sums}");
}

/// Builds from the source elsewhere install the same files of the project as the packages.
#[test]
fn what_is_built_elsewhere_has_the_files_of_the_packages() {
    let [_, list] = lists();
    for file in ["packaging/arch/PKGBUILD", "packaging/homebrew/vault-backup.rb", "packaging/nix/flake.nix"] {
        let text = read(file);
        for (source, _) in &list {
            // Homebrew installs the license and a service by itself, and knows no systemd.
            let own = source == "LICENSE" || source.starts_with("packaging/systemd/");
            if source.starts_with("target/stage/")
                || (own && Path::new(file).extension().is_some_and(|end| end == "rb"))
            {
                continue;
            }
            let named = source.split(['*', '/']).find(|part| !["packaging", "tests", ""].contains(part)).unwrap();
            assert!(text.contains(named), "{file}: {source}");
        }
        for what in ["man/*.1", "completions"] {
            assert!(text.contains(what), "{file}: {what}");
        }
    }
    assert!(read("packaging/Containerfile").contains("COPY target/stage/static/vault "));
}

/// A release has no place and no checksums before it is made. Until then no text names an address that
/// could be taken for it.
#[test]
fn no_package_claims_an_address() {
    let texts = [
        "Cargo.toml",
        "packaging/Containerfile",
        "packaging/arch/PKGBUILD",
        "packaging/build.sh",
        "packaging/homebrew/vault-backup.rb",
        "packaging/nix/flake.nix",
        "packaging/test.sh",
        "packaging/winget/vault.installer.yaml",
        "packaging/winget/vault.locale.en-US.yaml",
        "packaging/winget/vault.yaml",
    ];
    for file in texts {
        let text = read(file);
        let addresses = text.split_whitespace().filter(|word| word.contains("://"));
        let marked = text.split('<').skip(1).filter_map(|rest| rest.split('>').next());
        let people = marked.filter(|word| word.contains('@') && !word.contains(char::is_whitespace));
        for address in addresses.chain(people) {
            let known = ["deb.debian.org/debian", "maintainers@localhost"];
            assert!(known.iter().any(|known| address.contains(known)), "{file}: {address}");
        }
    }
    assert!(read("packaging/arch/PKGBUILD").contains("sha256sums=('SKIP')"));
    assert!(
        read("packaging/winget/vault.installer.yaml").contains(&format!("InstallerSha256: \"{}\"", "0".repeat(64)))
    );
}

/// The scripts and texts are read by the programs that they are for, where these are installed.
#[test]
fn scripts_and_texts_can_be_read() {
    let shell = &["-n"][..];
    let shellcheck = &["-S", "style"][..];
    for (program, args, file) in [
        ("bash", shell, "packaging/build.sh"),
        ("bash", shell, "packaging/test.sh"),
        ("bash", shell, "packaging/arch/PKGBUILD"),
        ("sh", shell, "packaging/rpm/preun.sh"),
        ("sh", shell, "packaging/rpm/post.sh"),
        ("sh", shell, "packaging/rpm/postun.sh"),
        ("shellcheck", shellcheck, "packaging/build.sh"),
        ("shellcheck", shellcheck, "packaging/test.sh"),
        ("ruby", &["-c"], "packaging/homebrew/vault-backup.rb"),
        ("nix-instantiate", &["--parse"], "packaging/nix/flake.nix"),
    ] {
        match Command::new(program).args(args).arg(root().join(file)).output() {
            Ok(output) => assert!(
                output.status.success(),
                "{program} {file}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(_) => eprintln!("NOTICE: {file} was not read: {program} is not here"),
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
