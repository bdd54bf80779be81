//! `vault ui --install`: puts the page into the menu of programs, and starts it at log-in if wanted. It opens in a
//! terminal, which asks for the password, and where Ctrl-C ends it.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::args::UiArgs;
use crate::cli::context::Context;
use crate::cli::error::Exit;
use crate::cli::error::Failure;
use crate::cli::error::quoted;
use crate::cli::machine;
use crate::cli::machine::Here;
use crate::cli::machine::Machine;
use crate::cli::output::Output;
use crate::cli::roots;
use crate::cli::schedule;
use crate::ownfile;

/// The text in each written file by which vault recognizes it.
const MARK: &str = "Written by vault ui --install, and taken away by vault ui --uninstall.";

/// A file written for the system.
struct Piece {
    path: PathBuf,
    text: Vec<u8>,
    is_program: bool,
}

#[derive(Serialize)]
struct InstallJson {
    installed: Vec<String>,
    removed: Vec<String>,
}

/// Puts the page into the menu.
pub(super) fn install(context: &Context, args: &UiArgs) -> Result<Exit, Failure> {
    let folders = Folders::of_this_user()?;
    let command = command(context, args)?;
    let (menu, login) = pieces(&folders, &command).map_err(Failure::new)?;
    let wanted: Vec<Piece> = menu.into_iter().chain(login.into_iter().filter(|_| args.at_login)).collect();
    for piece in &wanted {
        if is_foreign(&piece.path) {
            let shown = piece.path.display().to_string();
            return Err(Failure::new(format!("{shown} is there already, and vault has not written it"))
                .hint(format!("If it is of no use to you, remove it: rm {}", quoted(&shown))));
        }
    }
    for piece in &wanted {
        write(piece).map_err(|error| Failure::caused(format!("cannot write {}", piece.path.display()), &error))?;
    }
    let installed = wanted.iter().map(|piece| piece.path.display().to_string()).collect();
    said(context, InstallJson { installed, removed: Vec::new() })
}

/// Removes the page from the menu.
pub(super) fn uninstall(context: &Context, args: &UiArgs) -> Result<Exit, Failure> {
    let folders = Folders::of_this_user()?;
    let (menu, login) = pieces(&folders, &command(context, args)?).map_err(Failure::new)?;
    let mut removed = Vec::new();
    for piece in menu.into_iter().chain(login) {
        if piece.path.exists() && !is_foreign(&piece.path) {
            fs::remove_file(&piece.path)
                .map_err(|error| Failure::caused(format!("cannot remove {}", piece.path.display()), &error))?;
            removed.push(piece.path.display().to_string());
        }
    }
    said(context, InstallJson { installed: Vec::new(), removed })
}

fn said(context: &Context, done: InstallJson) -> Result<Exit, Failure> {
    let mut out = Output::new();
    if context.global.json {
        out.json(&done)?;
    } else if !context.global.quiet {
        for path in &done.installed {
            out.line(format_args!("Written: {path}"))?;
        }
        for path in &done.removed {
            out.line(format_args!("Removed: {path}"))?;
        }
        if done.installed.is_empty() && done.removed.is_empty() {
            out.line("Nothing was installed.")?;
        } else if !done.installed.is_empty() {
            out.say("It is in the menu of programs as \"vault\". vault ui --uninstall takes it out again.")?;
        }
    }
    out.finish().map(|()| Exit::Done)
}

/// Whether there is a file that vault has not written.
fn is_foreign(path: &Path) -> bool {
    match ownfile::read(path) {
        Ok(bytes) => !is_own(path, &bytes),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Whether vault wrote a file. Windows shortcuts and pictures cannot hold our mark; their names are ours alone.
fn is_own(path: &Path, bytes: &[u8]) -> bool {
    let is_text = !matches!(path.extension().and_then(|end| end.to_str()), Some("lnk" | "svg"));
    !is_text || bytes.windows(MARK.len()).any(|part| part == MARK.as_bytes())
}

/// The command to start: this program, with options that lead to the same vault.
fn command(context: &Context, args: &UiArgs) -> Result<Vec<String>, Failure> {
    let program = schedule::program()?;
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| Failure::new(format!("{}: a menu cannot have a path that is not UTF-8", path.display())))
    };
    let mut words = vec![text(&program)?, "ui".to_owned()];
    words.extend(args.read_only.then(|| "--read-only".to_owned()));
    if let Some(repo) = &context.global.repo {
        let chosen = context.chosen()?;
        let is_name = chosen.config.as_ref().is_some_and(|vault| Path::new(&vault.name) == repo);
        let folder = chosen.place.folder().filter(|_| !is_name);
        let repo = match folder {
            Some(folder) => text(&roots::absolute(&crate::cli::context::current_folder()?, folder))?,
            None => text(repo)?,
        };
        words.extend(["--repo".to_owned(), repo]);
    }
    let mut places = schedule::places(context, false)?;
    if context.config()?.is_none() {
        // Without a configuration there is no file to name.
        places.retain(|(option, _)| *option != "--config");
    }
    words.extend(places.into_iter().flat_map(|(option, path)| [option.to_owned(), path]));
    Ok(words)
}

/// The relevant folders of a user.
struct Folders {
    data: PathBuf,
    config: PathBuf,
    home: PathBuf,
}

impl Folders {
    fn of_this_user() -> Result<Self, Failure> {
        let failed = || Failure::new("there is no home folder to install anything in");
        let absolute = |name| Here.folder(name);
        let home = Here.home().ok_or_else(failed)?;
        if cfg!(windows) {
            let data = absolute("APPDATA").unwrap_or_else(|| home.join("AppData/Roaming"));
            return Ok(Self { config: data.clone(), data, home });
        }
        let data = absolute("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share"));
        let config = absolute("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        Ok(Self { data, config, home })
    }
}

/// The files for the menu, and those for the log-in.
fn pieces(folders: &Folders, command: &[String]) -> Result<(Vec<Piece>, Vec<Piece>), String> {
    let piece = |path: PathBuf, text: &str| Piece { path, text: text.as_bytes().to_vec(), is_program: false };
    if cfg!(windows) {
        let programs = folders.data.join("Microsoft/Windows/Start Menu/Programs");
        let [menu, login] = [programs.join("vault.lnk"), programs.join("Startup/vault.lnk")];
        let [at_menu, at_login] = [shortcut(&menu, command)?, shortcut(&login, command)?];
        return Ok((vec![piece(menu, &at_menu)], vec![piece(login, &at_login)]));
    }
    if cfg!(target_os = "macos") {
        let path = folders.home.join("Applications/vault.command");
        let agent = folders.home.join("Library/LaunchAgents/vault.page.plist");
        let login = piece(agent, &login_agent(&path)?);
        return Ok((vec![Piece { is_program: true, ..piece(path, &script(command)?) }], vec![login]));
    }
    let entry = desktop_entry(command)?;
    let icon = folders.data.join("icons/hicolor/scalable/apps/vault.svg");
    let menu = folders.data.join("applications/vault.desktop");
    let menu = vec![piece(icon, include_str!("../../web/assets/icon.svg")), piece(menu, &entry)];
    Ok((menu, vec![piece(folders.config.join("autostart/vault.desktop"), &entry)]))
}

fn write(piece: &Piece) -> io::Result<()> {
    if let Some(folder) = piece.path.parent() {
        fs::create_dir_all(folder)?;
    }
    if cfg!(windows) {
        // The piece's text is the script that makes the shortcut.
        let script = String::from_utf8_lossy(&piece.text).into_owned();
        let output =
            machine::program("powershell").args(["-NoProfile", "-NonInteractive", "-Command", &script]).output()?;
        let failed = || io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        return if output.status.success() { Ok(()) } else { Err(failed()) };
    }
    fs::write(&piece.path, &piece.text)?;
    #[cfg(unix)]
    if piece.is_program {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&piece.path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Refuses a text that has more than one line.
fn one_line(word: &str) -> Result<&str, String> {
    if word.chars().any(char::is_control) {
        return Err(format!("{word:?}: a menu cannot have a path with control characters"));
    }
    Ok(word)
}

/// An entry of the menu in the format of freedesktop.org's Desktop Entry Specification. Words are quoted twice: as an
/// argument, and as a text of the file.
fn desktop_entry(command: &[String]) -> Result<String, String> {
    let mut exec = Vec::new();
    for word in command {
        let mut quoted = String::from("\"");
        for c in one_line(word)?.chars() {
            match c {
                '"' | '`' | '$' => quoted.extend(['\\', '\\', c]),
                '\\' => quoted.push_str("\\\\\\\\"),
                '%' => quoted.push_str("%%"),
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        exec.push(quoted);
    }
    Ok(format!(
        "# {MARK}\n\
         [Desktop Entry]\n\
         Type=Application\n\
         Name=vault\n\
         Comment=Backups of your folders: look into them, and bring files back\n\
         Exec={}\n\
         Icon=vault\n\
         Terminal=true\n\
         Categories=System;Archiving;\n\
         Keywords=backup;restore;snapshot;\n",
        exec.join(" ")
    ))
}

/// The PowerShell script that makes a Windows shortcut. Words with spaces or quotes are quoted as Windows programs read
/// them.
fn shortcut(path: &Path, command: &[String]) -> Result<String, String> {
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut words = command.iter();
    let program = one_line(words.next().map_or("vault", String::as_str))?.to_owned();
    let mut rest = Vec::new();
    for word in words {
        let word = one_line(word)?;
        if word.contains('"') {
            return Err(format!("{word}: a shortcut cannot have a quotation mark"));
        }
        // A backslash right before the closing quote would escape it.
        let end = if word.ends_with('\\') { "\\" } else { "" };
        rest.push(if word.contains(' ') { format!("\"{word}{end}\"") } else { word.to_owned() });
    }
    Ok(format!(
        "$s = (New-Object -ComObject WScript.Shell).CreateShortcut({}); $s.TargetPath = {}; $s.Arguments = {}; \
         $s.Description = 'Backups of your folders'; $s.Save()",
        literal(&path.display().to_string()),
        literal(&program),
        literal(&rest.join(" "))
    ))
}

/// A script that macOS opens in its Terminal.
fn script(command: &[String]) -> Result<String, String> {
    let mut words = Vec::new();
    for word in command {
        words.push(format!("'{}'", one_line(word)?.replace('\'', "'\\''")));
    }
    Ok(format!("#!/bin/sh\n# {MARK}\nexec {}\n", words.join(" ")))
}

/// The launchd agent that opens that script at log-in.
fn login_agent(script: &Path) -> Result<String, String> {
    let text = script.to_str().ok_or_else(|| format!("{} is not UTF-8", script.display()))?;
    let text = one_line(text)?.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!-- {MARK} -->\n\
         <plist version=\"1.0\">\n\
         <dict>\n\
         \t<key>Label</key><string>vault.page</string>\n\
         \t<key>ProgramArguments</key><array><string>/usr/bin/open</string><string>{text}</string></array>\n\
         \t<key>RunAtLoad</key><true/>\n\
         </dict>\n\
         </plist>\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn words_are_quoted_as_each_system_reads_them() {
        let odd = words(&["/opt/my vault", "ui", "--repo", "/a\"b$c`d\\e%f"]);
        let entry = desktop_entry(&odd).unwrap();
        let exec = entry.lines().find_map(|line| line.strip_prefix("Exec=")).unwrap();
        assert_eq!(exec, r#""/opt/my vault" "ui" "--repo" "/a\\"b\\$c\\`d\\\\e%%f""#);
        assert!(desktop_entry(&words(&["a\nExec=rm"])).is_err());
        let made =
            shortcut(Path::new("C:\\Start\\vault.lnk"), &words(&["C:\\o'b\\vault.exe", "ui", "C:\\a b\\"])).unwrap();
        assert!(made.contains("TargetPath = 'C:\\o''b\\vault.exe'; $s.Arguments = 'ui \"C:\\a b\\\\\"'"), "{made}");
        assert!(shortcut(Path::new("x"), &words(&["a", "b\"c"])).is_err());
        let made = script(&words(&["/opt/it's", "ui"])).unwrap();
        assert!(made.ends_with("\nexec '/opt/it'\\''s' 'ui'\n"), "{made}");
        assert!(login_agent(Path::new("/a&b/<c>")).unwrap().contains("<string>/a&amp;b/&lt;c&gt;</string>"));
    }
}
