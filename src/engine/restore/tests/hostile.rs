//! Trees that no snapshot creates: anyone with the key may have written anything.

use super::*;
use crate::id::ChunkId;
use crate::log::RecordBody;
use crate::pack::{PackWriter, SegmentBuilder};
use crate::seal::{Compressor, Decompressor, ObjectKind};
use crate::tree::entry::LISTING_VERSION;
use crate::tree::{Entry, Holes, Stream, encode_entry};
use crate::varint;

impl Fixture {
    /// Stores a stream of one chunk.
    fn stream(&self, bytes: &[u8]) -> Stream {
        if bytes.is_empty() {
            return Stream::EMPTY;
        }
        let mut builder = SegmentBuilder::default();
        let id = builder.push(self.vault.keys(), |buffer| buffer.extend_from_slice(bytes), |_| true);
        let store = self.store.clone();
        let put = move |pack: crate::pack::FinishedPack| {
            store.put(&ObjectKey::Named(Kind::Meta, pack.name), pack.bytes).is_ok()
        };
        let writer = PackWriter::new(self.vault.keys(), ObjectKind::Meta, true, put);
        let mut decompressor = Decompressor::new().unwrap();
        writer.put(builder.compress(&mut Compressor::new(1).unwrap()), &mut decompressor).unwrap();
        writer.finish().unwrap();
        Stream { len: bytes.len() as u64, depth: 0, ids: vec![id] }
    }

    fn listing(&self, entries: &[Vec<u8>]) -> Stream {
        self.stream(&[&[LISTING_VERSION], entries.concat().as_slice()].concat())
    }

    /// A snapshot with these entries in a folder `top`, and this list of links.
    fn forged(&self, entries: &[Vec<u8>], links: &[u8]) -> SnapshotInfo {
        let mut body = self.snapshot().body;
        let mut top = Entry::new(*b"top", FileKind::Directory);
        top.mode = 0o755;
        top.content = Some(self.listing(entries));
        body.tree = self.listing(&[encoded(&top)]);
        body.links = self.stream(links);
        let record = RecordBody::Snapshot(Box::new(body));
        let time = Time { secs: 3, nanos: 0 };
        // The packs were put without a record in the log.
        self.vault.refresh(&Silent::default()).unwrap();
        let id = self.vault.publish(record, time, None, |_| true, &Silent::default()).unwrap().unwrap();
        self.vault.snapshot(&id).unwrap()
    }
}

fn encoded(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_entry(entry, &mut bytes).unwrap();
    bytes
}

fn file(name: &[u8], content: Stream) -> Entry {
    let mut entry = Entry::new(name, FileKind::File);
    entry.mode = 0o644;
    entry.size = content.len;
    entry.content = Some(content);
    entry
}

/// An entry whose name is replaced by another of the same length.
fn renamed(entry: &Entry, name: &[u8]) -> Vec<u8> {
    let mut bytes = encoded(entry);
    let at = bytes.windows(name.len()).position(|window| window == entry.name).unwrap();
    bytes[at..at + name.len()].copy_from_slice(name);
    bytes
}

#[test]
fn forbidden_names_lead_nowhere() {
    let fixture = Fixture::new();
    let content = fixture.stream(b"evil");
    for name in [&b".."[..], b".", b"a/b", b"/x", b"../../x", b"a\0b"] {
        let like = file(&vec![b'z'; name.len()], content.clone());
        let info = fixture.forged(&[encoded(&file(b"-good", content.clone())), renamed(&like, name)], &[]);
        let target = fixture.path("deep/target");
        let options = RestoreOptions { target: Target::Folder(target.clone()), ..fixture.options(&info) };
        let report = restore(&fixture.vault, &options, &Silent::default()).unwrap();
        assert_eq!((report.files, report.damage_count), (1, 1), "{:?}", report.problems);
        assert_eq!(describe(&fixture.path("deep")).len(), 4, "deep, target, top, -good");
        fs::remove_dir_all(fixture.path("deep")).unwrap();
    }
}

#[test]
fn names_that_come_twice_or_out_of_order_are_refused() {
    let fixture = Fixture::new();
    let content = fixture.stream(b"content");
    for names in [[b"a", b"a"], [b"b", b"a"]] {
        let entries = names.map(|name| encoded(&file(name, content.clone())));
        let info = fixture.forged(&entries, &[]);
        let report = restore(&fixture.vault, &fixture.options(&info), &Silent::default()).unwrap();
        assert_eq!((report.files, report.damage_count), (1, 1));
        fs::remove_dir_all(fixture.path("target")).unwrap();
    }
    // A link and then a folder of the same name must not lead out of the target.
    let mut link = Entry::new(*b"a", FileKind::Symlink);
    link.target = fixture.path("outside").into_os_string().into_vec();
    let mut folder = Entry::new(*b"a", FileKind::Directory);
    folder.content = Some(fixture.listing(&[encoded(&file(b"x", content))]));
    fs::create_dir(fixture.path("outside")).unwrap();
    let info = fixture.forged(&[encoded(&link), encoded(&folder)], &[]);
    restore(&fixture.vault, &fixture.options(&info), &Silent::default()).unwrap();
    assert_eq!(fs::read_dir(fixture.path("outside")).unwrap().count(), 0);
}

#[test]
fn contents_that_contradict_themselves_are_left_out() {
    let fixture = Fixture::new();
    let content = fixture.stream(b"content");
    let too_long = Stream { len: 8, ..content.clone() };
    let too_short = Stream { len: 6, ..content.clone() };
    let missing = Stream { len: 7, depth: 0, ids: vec![ChunkId::new([9; 16])] };
    let no_ids = Stream { depth: 1, ..content.clone() };
    let mut entries: Vec<Entry> = [too_long, too_short, missing, no_ids]
        .into_iter()
        .enumerate()
        .map(|(at, stream)| file(format!("bad{at}").as_bytes(), stream))
        .collect();
    for (at, pairs) in [&[0, 0][..], &[1], &[7, 0], &[200, 1, 1], &[3, 100], &[0xff; 10]].iter().enumerate() {
        let mut entry = file(format!("hole{at}").as_bytes(), content.clone());
        entry.size = 50;
        entry.holes = Some(Holes::Inline(pairs.to_vec()));
        entries.push(entry);
    }
    let count = entries.len() as u64;
    // A file of eight exbibytes, nearly all of it a hole, is larger than any file system allows.
    let mut giant = file(b"z-giant", content.clone());
    giant.size = 1 << 63;
    let mut pairs = vec![7];
    varint::put(&mut pairs, (1 << 63) - 7);
    giant.holes = Some(Holes::Inline(pairs));
    entries.push(giant);
    entries.push(file(b"zz-good", content));
    let encoded: Vec<Vec<u8>> = entries.iter().map(encoded).collect();
    let info = fixture.forged(&encoded, &[]);
    for overwrite in [Overwrite::Refuse, Overwrite::IfChanged, Overwrite::Always] {
        let options = RestoreOptions { overwrite, ..fixture.options(&info) };
        let report = restore(&fixture.vault, &options, &Silent::default()).unwrap();
        assert_eq!((report.files, report.damage_count, report.problem_count), (1, count, count + 1), "{report:?}");
        assert_eq!(fs::read(fixture.path("target/top/zz-good")).unwrap(), b"content");
        assert_eq!(fs::read_dir(fixture.path("target/top")).unwrap().count(), 1);
    }
    for name in ["bad0", "hole2"] {
        let path = format!("top/{name}");
        let mut out = Vec::new();
        assert!(browse::cat(&fixture.vault, &info, path.as_bytes(), &mut out, &Silent::default()).is_err());
    }
}

#[test]
fn hard_links_lead_only_to_what_was_restored() {
    let fixture = Fixture::new();
    fs::write(fixture.path("secret"), b"secret").unwrap();
    let content = fixture.stream(b"content");
    let entries = [b"a", b"b", b"c"].map(|name| encoded(&file(name, content.clone())));
    let group = |paths: &[&str]| {
        let mut bytes = Vec::new();
        varint::put(&mut bytes, paths.len() as u64);
        for path in paths {
            varint::put(&mut bytes, path.len() as u64);
            bytes.extend_from_slice(path.as_bytes());
        }
        bytes
    };
    let secret = fixture.path("secret").into_os_string().into_string().unwrap();
    for (links, linked, problems) in [
        (group(&["top/a", "top/b"]), true, 0),
        (group(&[&secret, "top/../../secret", "../secret", "top/a"]), false, 0),
        (group(&["top/none", "top/a", "top/b"]), true, 0),
        (group(&["top/a", "top/a", "top/b"]), true, 0),
        ([group(&["top/a", "top/b"]), group(&["top/b", "top/c"])].concat(), true, 0),
        (group(&["top", "top/a"]), false, 0),
        (b"\x02\x05top/a\x05to".to_vec(), false, 1),
        (b"\x01\x05top/a".to_vec(), false, 1),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x05top/a\x05top/b".to_vec(), true, 1),
    ] {
        let info = fixture.forged(&entries, &links);
        let report = restore(&fixture.vault, &fixture.options(&info), &Silent::default()).unwrap();
        assert_eq!((report.files, report.problem_count), (3, problems), "{links:?} {:?}", report.problems);
        let of = |name: &str| fs::metadata(fixture.path("target/top").join(name)).unwrap();
        assert_eq!(of("a").ino() == of("b").ino(), linked, "{links:?}");
        for name in ["a", "b", "c"] {
            assert_eq!(fs::read(fixture.path("target/top").join(name)).unwrap(), b"content");
        }
        assert_eq!(fs::metadata(fixture.path("secret")).unwrap().nlink(), 1);
        fs::remove_dir_all(fixture.path("target")).unwrap();
    }
}

#[test]
fn listings_of_later_versions_are_not_called_damaged() {
    let fixture = Fixture::new();
    let mut folder = Entry::new(*b"later", FileKind::Directory);
    folder.content = Some(fixture.stream(&[LISTING_VERSION + 1, 0, 0]));
    let info = fixture.forged(&[encoded(&folder)], &[]);
    let report = restore(&fixture.vault, &fixture.options(&info), &Silent::default()).unwrap();
    assert_eq!((report.problem_count, report.damage_count), (1, 0));
    assert!(report.problems[0].what.contains("newer"), "{}", report.problems[0].what);
}
