//! The completions that a shell offers while a line is typed: names from the configuration, and what this machine has
//! seen of a vault. There is no question, no access to a vault, and no message.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::binary::{Desk, Said, said};

/// The completions of the last word of a line.
fn offered_by(desk: &Desk, words: &[&str], change: impl Fn(&mut Command)) -> Said {
    let line = [&["--", "vault"][..], words].concat();
    let mut command = desk.command(&line);
    command
        .env("VAULT_COMPLETE", "bash")
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env_remove("VAULT_PASSWORD");
    change(&mut command);
    said(&command.output().unwrap())
}

fn offered(desk: &Desk, words: &[&str]) -> Vec<String> {
    let said = offered_by(desk, words, |_| {});
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{words:?}");
    said.out.lines().map(str::to_owned).collect()
}

#[test]
fn snapshots_sources_tags_and_machines_that_were_seen_are_offered() {
    let desk = Desk::new();
    desk.write("a", "1");
    assert_eq!(offered(&desk, &["ls", "l"]), Vec::<String>::new(), "nothing was seen yet");
    let first = desk.take("2026-01-01");
    desk.write("a", "2");
    desk.ok(&["snapshot", ".", "--source", "other", "--host", "elsewhere", "--tag", "good", "--time", "2026-02-01"]);
    let list = desk.json(&["list"]);
    let second = list[0]["snapshots"][1]["id"].as_str().unwrap()[..8].to_owned();
    for words in [
        &["ls", ""][..],
        &["cat", ""],
        &["restore", ""],
        &["export", ""],
        &["du", ""],
        &["diff", ""],
        &["diff", "latest", ""],
        &["du", "--since", ""],
        &["forget", ""],
        &["pin", "latest", ""],
        &["tag", "add", "good", ""],
        &["amend", ""],
        &["rewrite", ""],
    ] {
        let found = offered(&desk, words);
        let expected = ["latest".to_owned(), second.clone(), first[..8].to_owned()];
        // Options may follow.
        assert_eq!(found[..3], expected, "{words:?}: {found:?}");
    }
    assert_eq!(offered(&desk, &["ls", &first[..5]]), [&first[..8]]);
    assert_eq!(offered(&desk, &["list", "--source", ""]), ["other", "source"]);
    assert_eq!(offered(&desk, &["list", "--host", "else"]), ["elsewhere"]);
    assert_eq!(offered(&desk, &["list", "--tag", ""]), ["good"]);
    assert_eq!(offered(&desk, &["tag", "remove", "g"]), ["good"]);
    // Changed or forgotten snapshots are no longer offered.
    desk.ok(&["tag", "add", "old", &first]);
    let found = offered(&desk, &["ls", ""]);
    assert!(!found.contains(&first[..8].to_owned()) && found.len() >= 3, "{found:?}");
    desk.ok(&["forget", &second]);
    assert!(!offered(&desk, &["ls", ""]).contains(&second));
    // Nothing is known of another vault, nor with another state folder.
    let store = desk.path("store");
    let none = |words: &[&str]| offered(&desk, words).iter().all(|word| word.starts_with('-'));
    assert!(none(&["--repo", "nowhere", "ls", ""]) && none(&["ls", "-r", "/", ""]));
    assert!(none(&["--state", "elsewhere", "ls", ""]));
    assert!(!none(&[&format!("--repo={}", store.display()), "ls", ""]));
}

#[test]
fn what_the_configuration_has_is_offered() {
    let desk = Desk::new();
    let config = desk.path("vault.toml");
    fs::write(
        &config,
        "[vaults.disk]\npath = \"/nowhere/at/all\"\n[vaults.nas]\npath = \"sftp://nobody.invalid/x\"\n\
         [sources.documents]\npaths = [\"/etc\"]\n[sources.pictures]\npaths = [\"/etc\"]\n",
    )
    .unwrap();
    let offered = |words: &[&str]| {
        let said = offered_by(&desk, words, |command| {
            command.env("VAULT_CONFIG", &config).env_remove("VAULT_REPO");
        });
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{words:?}");
        said.out.lines().filter(|line| !line.starts_with('-')).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(offered(&["run", ""]), ["documents", "pictures"]);
    assert_eq!(offered(&["list", "--source", "p"]), ["pictures"]);
    desk.write("nested/x", "1");
    let mut both = offered(&["list", "--repo", "n"]);
    both.sort();
    assert_eq!(both, ["nas", "nested/"], "a vault, or a folder");
    // A far vault is not asked.
    let begun = Instant::now();
    assert!(offered(&["--repo", "nas", "ls", ""]).is_empty());
    assert!(begun.elapsed().as_secs() < 5, "it did not wait");
    // A mistake in the configuration prints nothing into the line.
    fs::write(&config, "[sources\n").unwrap();
    assert!(offered(&["run", ""]).is_empty());
}

#[test]
fn findings_are_offered() {
    let desk = Desk::new();
    desk.write("a", "1");
    desk.take("2026-01-01");
    for folder in ["packs", "meta"] {
        fs::remove_dir_all(desk.path("store").join(folder)).unwrap();
        fs::create_dir(desk.path("store").join(folder)).unwrap();
    }
    assert_eq!(desk.run(&["repair", "--yes"]).code, 4);
    let said = desk.run(&["accept", "--json"]);
    let known: serde_json::Value = serde_json::from_str(said.out.lines().next().unwrap()).unwrap();
    let id = known["findings"][0]["id"].as_str().unwrap();
    assert_eq!(offered(&desk, &["accept", &id[..4]]), [id]);
}

#[test]
fn a_shell_that_has_the_script_asks() {
    let desk = Desk::new();
    desk.write("a", "1");
    desk.take("2026-01-01");
    let script = desk.ok(&["completions", "bash", "--dynamic"]);
    fs::write(desk.path("complete.bash"), &script).unwrap();
    assert!(script.contains("VAULT_COMPLETE"));
    assert_ne!(script, desk.ok(&["completions", "bash"]));
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(desk.ok(&["completions", shell, "--dynamic"]).contains("VAULT_COMPLETE"), "{shell}");
    }
    if Command::new("bash").arg("--version").output().is_err() {
        eprintln!("NOTICE: not tried: there is no bash");
        return;
    }
    let inner = desk.command(&[]);
    let program = std::path::Path::new(inner.get_program()).parent().unwrap().to_owned();
    let asked = format!(
        "PATH='{}':$PATH; source '{}'; COMP_WORDS=(vault ls la); COMP_CWORD=2; COMP_TYPE=9; \
         _clap_complete_vault vault la ls; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        program.display(),
        desk.path("complete.bash").display()
    );
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &asked]).current_dir(desk.source()).stdin(Stdio::null());
    bash.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("VAULT_PASSWORD");
    let said = said(&bash.output().unwrap());
    assert_eq!(said.out.trim(), "latest", "{}", said.err);
}

/// Packages put the script for zsh into a folder of functions, where zsh reads it at the first completion.
#[test]
fn the_first_completion_of_zsh_is_answered() {
    let desk = Desk::new();
    desk.write("a", "1");
    desk.take("2026-01-01");
    fs::create_dir(desk.path("functions")).unwrap();
    fs::write(desk.path("functions/_vault"), desk.ok(&["completions", "zsh", "--dynamic"])).unwrap();
    let inner = desk.command(&[]);
    let program = std::path::Path::new(inner.get_program()).parent().unwrap().to_owned();
    // What zsh's own completion has: it notes the functions of commands, and shows what it is given.
    let asked = format!(
        "path=('{}' $path); fpath=('{functions}' $fpath); typeset -A _comps; compdef() {{ _comps[$2]=$1 }}; \
         _describe() {{ local list=${{@[-1]}}; print -r -- ${{(P)list}} }}; words=(vault ls la); CURRENT=3; \
         source '{functions}/_vault'; print read; autoload -U _vault; _vault; $_comps[vault]",
        program.display(),
        functions = desk.path("functions").display()
    );
    let mut zsh = Command::new("zsh");
    zsh.args(["-f", "-c", &asked]).current_dir(desk.source()).stdin(Stdio::null());
    zsh.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("VAULT_PASSWORD");
    match zsh.output() {
        Ok(output) => {
            let said = said(&output);
            let lines: Vec<_> = said.out.lines().filter_map(|line| line.split(':').next()).collect();
            assert_eq!(lines, ["read", "latest", "latest"], "{}", said.err);
        }
        Err(_) => eprintln!("NOTICE: not tried: there is no zsh"),
    }
}
