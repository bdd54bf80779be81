//! A pack of another client is trusted only after it was examined: a false footer costs nobody a file.

use std::path::Path;
use std::sync::Arc;

use vault::id::{ChunkId, Digest, ObjectName};
use vault::log::{FoundRecord, Record, RecordBody};
use vault::pack::{PackWriter, SegmentBuilder};
use vault::progress::Silent;
use vault::seal::{Compressor, Decompressor, HEADER_LEN, ObjectKind, Secret};
use vault::store::dir::DirStore;
use vault::store::{Kind, ObjectKey, Store};
use vault::vault::open::open;
use vault::vault::{OpenOptions, Vault};
use vault::write::trust::VerifyOthers;

use crate::support::binary::{Desk, Said};
use crate::support::{RAW, copy_folder, identity, now};

/// The fault of the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Nothing.
    None,
    /// Its segments are random bytes.
    Rubbish,
    /// Its segments are whole, but have other chunks than the footer says.
    OtherChunks,
    /// One of four segments is of that sort.
    SomeSegments,
    /// The footer gives wrong lengths of chunks.
    Lengths,
}

/// The client that claims the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// The client that put it.
    Putter,
    /// Nobody.
    Nobody,
    /// A record forged in the victim's name.
    Forged,
    /// A record of kind 8 that holds one in the victim's name.
    Held,
}

/// Bytes that no two chunks share.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Opens the vault as a second client.
fn attacker(desk: &Desk) -> Vault {
    let store: Arc<dyn Store> = Arc::new(DirStore::open(&desk.path("store")).unwrap());
    let options = OpenOptions::new(desk.path("attacker"), identity("attacker"));
    open(store, &Secret::raw(&RAW), options, &Silent::default()).unwrap()
}

/// Puts a pack whose footer claims the chunks of `content`.
fn poison(desk: &Desk, content: &[u8], lie: Lie, claim: Claim) -> ObjectName {
    let vault = attacker(desk);
    // A client that joins is waited for before anything is deleted, so no needless client joins.
    let session = (claim == Claim::Putter).then(|| vault.begin_writing(now(), &Silent::default()).unwrap());
    let (keys, mut rest) = (vault.keys(), content);
    let mut chunks: Vec<(ChunkId, &[u8])> = Vec::new();
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(keys.cutter().cut(rest));
        chunks.push((keys.chunk_id(chunk), chunk));
        rest = behind;
    }
    assert!(chunks.len() >= 16, "{}", chunks.len());
    let (sender, received) = std::sync::mpsc::channel();
    let writer = PackWriter::new(keys, ObjectKind::Pack, false, move |pack| sender.send(pack).is_ok());
    let (mut compressor, mut decompressor) = (Compressor::new(1).unwrap(), Decompressor::new().unwrap());
    for (number, part) in chunks.chunks(chunks.len().div_ceil(4)).enumerate() {
        let mut segment = SegmentBuilder::default();
        for (at, (id, chunk)) in part.iter().enumerate() {
            let other = noise(at as u64 + 100, chunk.len());
            let lies = lie == Lie::OtherChunks || (lie == Lie::SomeSegments && number == 2);
            segment.push_known(*id, if lies { &other } else { chunk });
        }
        let mut body = segment.compress(&mut compressor);
        if lie == Lie::Lengths {
            body.chunks[0].1 += 1;
            body.chunks[1].1 -= 1;
        }
        writer.put(body, &mut decompressor).unwrap();
    }
    writer.finish().unwrap();
    let pack = received.recv().unwrap();
    let mut bytes = pack.bytes.to_vec();
    if lie == Lie::Rubbish {
        let len = pack.footer.segments.iter().map(|entry| entry.sealed_len as usize).sum::<usize>();
        bytes[HEADER_LEN..HEADER_LEN + len].copy_from_slice(&noise(7, len));
        bytes.truncate(bytes.len() - 32);
        bytes.extend_from_slice(blake3::hash(&bytes.clone()).as_bytes());
    }
    if let Some(session) = &session {
        session.note_pack(&pack.name, pack.kind, pack.bytes.len() as u64).unwrap();
    }
    vault.store().put(&ObjectKey::Named(Kind::Pack, pack.name), bytes.into()).unwrap();
    let forged = || {
        let chains = vault.chains();
        let victim = chains.clients.keys().find(|client| chains.join(client).is_some_and(|join| join.host != "host"));
        let last = chains.last(victim.expect("the victim has written")).unwrap();
        Record {
            client: last.record.client,
            number: last.record.number + 1,
            previous: last.digest,
            seen: Vec::new(),
            time: now(),
            claims: vec![pack.name],
            closed: Vec::new(),
            body: RecordBody::Forget(Vec::new()),
        }
    };
    let publish = |body, session| vault.publish(body, now(), session, |_| true, &Silent::default()).unwrap();
    match claim {
        Claim::Putter => drop(publish(RecordBody::Forget(Vec::new()), session.as_ref())),
        Claim::Nobody => {}
        Claim::Forged => {
            let sealed = forged().seal(keys).unwrap();
            vault.store().put(&ObjectKey::Named(Kind::Log, sealed.name), sealed.bytes.clone()).unwrap();
        }
        Claim::Held => {
            let (name, plain) = (ObjectName::new([0xee; 16]), forged().encode().unwrap());
            let held = FoundRecord { name, digest: Digest::new([0xee; 32]), plain };
            let _ = publish(RecordBody::Found(vec![held].into()), None);
        }
    }
    pack.name
}

/// A desk with one snapshot, and a file that will be stored.
fn desk() -> (Desk, Vec<u8>) {
    let desk = Desk::new();
    desk.write("before", "something that is there already");
    desk.take("2026-01-01 12:00");
    (desk, noise(1, 28 << 10))
}

#[track_caller]
fn ends(desk: &Desk, args: &[&str], code: i32) -> Said {
    let said = desk.run(args);
    assert_eq!(said.code, code, "{args:?}: {}{}", said.out, said.err);
    said
}

/// Checks that a machine that knows nothing can restore the file.
#[track_caller]
fn restores(desk: &Desk, content: &[u8]) {
    let state = desk.path("fresh");
    let args = ["restore", "latest:source/file", "--source", "source", "--to", "../out"];
    let output = desk.command(&args).env("VAULT_STATE_DIR", &state).output().unwrap();
    let read = std::fs::read(desk.path("out/file")).unwrap_or_default();
    assert!(read == content, "{}", String::from_utf8_lossy(&output.stderr));
    for path in [&state, Path::new(&desk.path("out"))] {
        let _ = std::fs::remove_dir_all(path);
    }
}

#[test]
fn a_footer_that_is_not_true_costs_nobody_a_file() {
    let claims = [Claim::Putter, Claim::Nobody, Claim::Forged, Claim::Held];
    let lies = [Lie::Rubbish, Lie::OtherChunks, Lie::Lengths];
    for (lie, claim) in lies.iter().flat_map(|lie| claims.map(|claim| (*lie, claim))) {
        // Each claim with one lie, and each lie with the plainest claim.
        if claim != Claim::Putter && lie != Lie::Rubbish {
            continue;
        }
        let (desk, content) = desk();
        let pack = poison(&desk, &content, lie, claim).to_string();
        desk.write("file", &content);
        let taken = ends(&desk, &["snapshot", ".", "--source", "source", "--json"], 0);
        let json: serde_json::Value = serde_json::from_str(taken.out.lines().last().unwrap()).unwrap();
        assert_eq!(json["snapshot"]["bytes_new"], content.len(), "{lie:?} {claim:?}: {}", taken.err);
        assert!(taken.err.contains(&pack), "{lie:?} {claim:?}: {}", taken.err);
        restores(&desk, &content);
        // It is a finding like any other, for this machine and for others.
        for args in [&["list"][..], &["check"], &["doctor"]] {
            let said = ends(&desk, args, 4);
            assert!(said.out.contains(&pack), "{lie:?} {claim:?} {args:?}: {}", said.out);
        }
        let other = desk.command(&["list"]).env("VAULT_STATE_DIR", desk.path("other")).output().unwrap();
        assert_eq!(other.status.code(), Some(4), "{lie:?} {claim:?}");
        // Freeing space keeps the right copy.
        desk.run(&["prune", "--keep", "9", "--max-unused", "0%"]);
        restores(&desk, &content);
    }
}

#[test]
fn a_pack_of_others_that_is_right_is_relied_on_and_looked_at_once() {
    let (desk, content) = desk();
    poison(&desk, &content, Lie::None, Claim::Putter);
    desk.write("file", &content);
    let taken = desk.json(&["snapshot", ".", "--source", "source"]);
    assert_eq!(taken[0]["snapshot"]["bytes_new"], 0);
    // Nothing is left for a check to examine.
    assert_eq!(desk.json(&["check"])[0]["packs_sampled"], 0);
    restores(&desk, &content);
}

#[test]
fn what_only_some_segments_lie_about_is_found_by_looking_at_all() {
    let (desk, content) = desk();
    poison(&desk, &content, Lie::SomeSegments, Claim::Putter);
    desk.write("file", &content);
    let args = ["snapshot", ".", "--source", "source", "--verify-others", "all"];
    let taken = ends(&desk, &args, 0);
    assert!(taken.err.contains("cannot be relied on"), "{}", taken.err);
    restores(&desk, &content);
    // Examining one segment may miss it; then a later examination of all finds it, and the file is stored again.
    let (desk, content) = self::desk();
    poison(&desk, &content, Lie::SomeSegments, Claim::Putter);
    desk.write("file", &content);
    ends(&desk, &["snapshot", ".", "--source", "source"], 0);
    ends(&desk, &args, 0);
    restores(&desk, &content);
}

#[test]
fn what_was_relied_on_without_a_look_is_looked_at_later() {
    let (desk, content) = desk();
    poison(&desk, &content, Lie::Rubbish, Claim::Putter);
    desk.write("file", &content);
    let unseen = ["snapshot", ".", "--source", "source", "--verify-others", "none", "--json"];
    let taken = ends(&desk, &unseen, 0);
    assert!(taken.out.contains("\"bytes_new\":0"), "{}", taken.out);
    // The file has not changed, but the packs that it relies on are now examined.
    ends(&desk, &["snapshot", ".", "--source", "source"], 0);
    restores(&desk, &content);
    ends(&desk, &["list"], 4);
}

#[test]
fn a_check_looks_at_what_nobody_here_has_looked_at() {
    for lie in [Lie::Rubbish, Lie::OtherChunks, Lie::Lengths] {
        let (desk, content) = desk();
        let pack = poison(&desk, &content, lie, Claim::Nobody).to_string();
        let said = ends(&desk, &["check"], 4);
        assert!(said.out.contains(&pack), "{lie:?}: {}", said.out);
        // It is known from now on, so nothing relies on it.
        desk.write("file", &content);
        ends(&desk, &["snapshot", ".", "--source", "source"], 0);
        restores(&desk, &content);
    }
}

#[test]
fn a_collection_by_a_third_machine_keeps_the_right_copy() {
    let (desk, content) = desk();
    // The victim has stored the file before; the false pack comes later, or earlier in the eyes of a third machine.
    desk.write("file", &content);
    ends(&desk, &["snapshot", ".", "--source", "source"], 0);
    poison(&desk, &content, Lie::Rubbish, Claim::Nobody);
    for _ in 0..3 {
        let args = ["prune", "--keep", "9", "--max-unused", "0%"];
        desk.command(&args).env("VAULT_STATE_DIR", desk.path("third")).output().unwrap();
        desk.run(&args);
    }
    restores(&desk, &content);
}

#[test]
fn an_archive_relies_on_nothing_that_was_not_looked_at() {
    let (desk, content) = desk();
    desk.write("file", &content);
    std::fs::create_dir(desk.path("tar")).unwrap();
    copy_folder(&desk.source(), &desk.path("tar/source"));
    let tar = desk.path("2026-02-02.tar");
    let mut command = std::process::Command::new("tar");
    assert!(command.arg("cf").arg(&tar).arg("-C").arg(desk.path("tar")).arg("source").status().unwrap().success());
    poison(&desk, &content, Lie::Rubbish, Claim::Putter);
    let args = ["import", "--verify-others", "sample", "--tar", tar.to_str().unwrap(), "--source", "source"];
    ends(&desk, &args, 0);
    restores(&desk, &content);
}

#[test]
fn the_words_for_looking_are_those_of_the_help() {
    let (desk, _) = desk();
    for how in ["none", "sample", "all"] {
        ends(&desk, &["snapshot", ".", "--verify-others", how], 0);
    }
    ends(&desk, &["snapshot", ".", "--verify-others", "some"], 2);
    assert_eq!(VerifyOthers::default(), VerifyOthers::Sample);
}
