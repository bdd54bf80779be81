//! A catalogue that is wrong about packs. Everything else is tested from outside.

use std::sync::Arc;

use super::*;
use crate::catalogue::packs::NewPack;
use crate::engine::patterns::exclude::ExcludeOptions;
use crate::engine::snapshot::{Empty, Input, SnapshotOptions, snapshot};
use crate::pack::PackReader;
use crate::progress::Silent;
use crate::seal::{KdfParams, Secret};
use crate::store::testing::mem::MemStore;
use crate::store::{Delivery, Store};
use crate::vault::create::create;
use crate::vault::open::open;
use crate::vault::{CreateOptions, Identity, OpenOptions};

fn clock() -> Time {
    Time { secs: 1_800_000_000, nanos: 0 }
}

#[test]
fn a_catalogue_that_is_wrong_is_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("a"), vec![1; 300_000]).unwrap();
    std::fs::write(source.join("b"), (0..300_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect::<Vec<_>>())
        .unwrap();
    let store: Arc<dyn Store> = Arc::new(MemStore::new());
    let secret = || Secret::raw(b"a device secret!");
    let options = CreateOptions {
        secret: Secret::password("a"),
        label: String::new(),
        kdf: KdfParams::Explicit { memory_kib: 19 << 10, passes: 1, lanes: 1 },
        params: crate::chunk::ChunkParams::default(),
        delivery: Delivery::Direct,
        now: 0,
        recovery: Some(secret()),
    };
    create(store.as_ref(), &options).unwrap();
    let identity = Identity { host: "h".into(), user: "u".into(), machine: "m".into(), program: "p".into() };
    let options = OpenOptions::new(folder.path().join("state"), identity);
    let vault = open(store, &secret(), options, &Silent::default()).unwrap();
    let options = SnapshotOptions {
        source: "s".to_owned(),
        inputs: vec![Input::Path { name: b"top".to_vec(), path: source, only: None }],
        time: clock(),
        given: false,
        clock: &clock,
        tags: Vec::new(),
        description: String::new(),
        exclude: ExcludeOptions::default(),
        skip_if_unchanged: false,
        empty: Empty::IfItWasFull,
        dry_run: false,
        level: 1,
        verify: true,
        others: crate::write::trust::VerifyOthers::Sample,
        read_all: false,
        read_special: false,
        threads: 1,
    };
    snapshot(&vault, options, &Silent::default()).unwrap();
    let options = RepairOptions { read_data: false, of_others: true, clock: &clock, threads: 1, from: None };
    let wrong = || plan(&vault, &options, &Silent::default()).unwrap().catalogue;
    assert_eq!(wrong(), 0);
    let infos = vault.catalogue().reader().unwrap().packs().unwrap();
    let info = infos.values().find(|info| info.kind == ObjectKind::Pack).unwrap().clone();
    let footer = PackReader::new(vault.store(), vault.keys()).footer(info.kind, info.name, info.len).unwrap();
    // A chunk with another id, swapped chunks, and a missing segment.
    for change in 0..3 {
        let mut footer = footer.clone();
        match change {
            0 => footer.segments[0].chunks[0].0 = ChunkId::new([7; 16]),
            1 => footer.segments[0].chunks.reverse(),
            _ => drop(footer.segments.pop()),
        }
        let txn = vault.catalogue().write().unwrap();
        vault.catalogue().remove_packs(&txn, &[info.name]).unwrap();
        vault
            .catalogue()
            .insert_packs(&txn, &[NewPack { kind: info.kind, name: info.name, len: info.len, footer }])
            .unwrap();
        txn.commit().unwrap();
        assert_eq!(wrong(), 1, "change {change}");
        assert_eq!(wrong(), 0, "change {change}");
    }
}
