//! Memory of the program at a far store, beside the same work over a folder: what waits to be sent, and what is read
//! ahead, is bounded, however slow the line is.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vault::chunk::ChunkParams;
use vault::store::dir::DirStore;

use crate::far::{Quick, hasty, opened_with};
use crate::support::binary::Desk;
use crate::support::s3::{FakeS3, KEY};
use crate::support::source::write;
use crate::support::{campaign, create_vault};

/// The most that a far store may take beside a folder.
const BESIDE: u64 = 160 << 20;

/// The most memory that a command had, in bytes. It must succeed.
fn peak(mut command: Command) -> u64 {
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let ended = loop {
        // The highest so far, which only the last moments can exceed.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|rest| {
            let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
            Some(kib << 10)
        });
        most = most.max(line.unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(ended.success() && most > 0, "{:?}: {ended}", command.get_args().collect::<Vec<_>>());
    most
}

/// Files of noise with this many MiB in all: small ones, and a large one.
fn plant(source: &Path, mib: u64) {
    for number in 0..mib / 2 {
        fs::create_dir_all(source.join(format!("{}", number % 7))).unwrap();
        // Even seeds do not compress.
        write(&source.join(format!("{}/{number}", number % 7)), number * 2, 1 << 20);
    }
    write(&source.join("large"), 1_000_000, usize::try_from(mib / 2).unwrap() << 20);
}

#[test]
fn a_far_store_takes_little_more_memory_than_a_folder() {
    if campaign() == 0 {
        eprintln!("skipped: a campaign; without optimization it takes minutes");
        return;
    }
    let mib = 192 * campaign();
    let desk = Desk::new();
    plant(&desk.source(), mib);
    let server = FakeS3::start(1000);
    let variables = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let far = server.vault("v");
    // Cheap passwords, so that their memory hides nothing, and chunks as usual.
    create_vault(opened_with(&far, Quick::new(), hasty(), &variables).as_ref(), ChunkParams::default()).unwrap();
    let near = desk.path("near");
    create_vault(&DirStore::create(&near).unwrap(), ChunkParams::default()).unwrap();
    // A line that is slower than the disk: as many packs wait for it as may.
    server.take_time(Duration::from_millis(400));
    let mut peaks = Vec::new();
    for repo in [near.to_str().unwrap(), &far] {
        let run = |args: &[&str]| {
            let mut command = desk.command(args);
            command.env("VAULT_REPO", repo).envs(variables).arg("--quiet");
            peak(command)
        };
        let taken = run(&["snapshot", "."]);
        let to = desk.path("restored");
        let restored = run(&["restore", "latest", "--to", to.to_str().unwrap()]);
        for name in ["large", "3/10"] {
            assert_eq!(fs::read(to.join("source").join(name)).unwrap(), fs::read(desk.source().join(name)).unwrap());
        }
        fs::remove_dir_all(to).unwrap();
        peaks.push((taken, restored));
    }
    let [(near_taken, near_restored), (far_taken, far_restored)] = peaks[..] else { panic!("{peaks:?}") };
    let shown = peaks.iter().map(|(taken, restored)| format!("{} and {} MiB", taken >> 20, restored >> 20));
    println!("{mib} MiB, snapshot and restore, near and far: {:?}", shown.collect::<Vec<_>>());
    assert!(server.most_under_way() >= 4, "nothing had to wait");
    assert!(far_taken <= near_taken + BESIDE, "{peaks:?}");
    assert!(far_restored <= near_restored + BESIDE, "{peaks:?}");
}
