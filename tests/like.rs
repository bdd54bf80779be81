//! `vault init --like`: vaults that share the keys that cut and name chunks, and no key that opens anything.

use crate::support::binary::Desk;

/// The digest of everything in the newest snapshot of a vault.
fn digest(desk: &Desk, repo: &str, password: &str) -> String {
    let output = desk.command(&["ls", "--digest", "latest", "--repo", repo]).env("VAULT_PASSWORD", password).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn vaults_made_alike_have_equal_ids_and_separate_keys() {
    let desk = Desk::new();
    desk.write("a", blake3::hash(b"a").as_bytes().repeat(1000));
    desk.write("folder/b", "b");
    let run = |args: &[&str], password: &str, like: Option<&str>| {
        let mut command = desk.command(args);
        command.env("VAULT_PASSWORD", password);
        if let Some(like) = like {
            command.env("VAULT_LIKE_PASSWORD", like);
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let store = desk.path("store").display().to_string();
    let known = crate::support::PASSWORD;
    assert_eq!(run(&["init", "--repo", "../like", "--like", &store], "other", Some("wrong")).0, Some(12));
    assert!(!desk.path("like").exists());
    assert_eq!(run(&["init", "--repo", "../like", "--like", &store, "--chunk-avg", "1M"], known, None).0, Some(2));
    assert_eq!(run(&["init", "--repo", "../like", "--like", &store], "other", Some(known)), (Some(0), String::new()));
    assert_eq!(run(&["init", "--repo", "../unlike"], "other", None), (Some(0), String::new()));
    for (repo, password) in [("../store", known), ("../like", "other"), ("../unlike", "other")] {
        let (code, said) = run(&["snapshot", ".", "--repo", repo], password, None);
        assert_eq!(code, Some(0), "{said}");
    }
    let first = digest(&desk, "../store", known);
    assert_eq!(digest(&desk, "../like", "other"), first);
    assert_ne!(digest(&desk, "../unlike", "other"), first);
    assert_eq!(run(&["list", "--repo", "../like"], known, None).0, Some(12));
    assert_eq!(run(&["check", "--read-data", "--repo", "../like"], "other", None).0, Some(0));
}
