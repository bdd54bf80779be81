//! The plaintext of a log record: any bytes, and any message with a frame that fits; and its form inside another
//! record.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault::id::{Digest, ObjectName};
use vault::log::merge::{Contents, Done, unfold};
use vault::log::{Chains, FoundRecord, Link, Record, RecordBody};

fn check(plain: &[u8]) {
    let Ok(record) = Record::decode(plain) else { return };
    if !matches!(record.body, RecordBody::Unknown(_))
        && let Ok(again) = record.encode()
    {
        assert_eq!(Record::decode(&again).ok().as_ref(), Some(&record));
    }
    let (name, digest) = (ObjectName::new([1; 16]), Digest::new([2; 32]));
    let found = FoundRecord { name, digest, plain: plain.to_vec() };
    let all = unfold(found.clone());
    for held in &all.records {
        let inner = Record::decode(&held.plain).expect("what is held is a record");
        assert!(!matches!(inner.body, RecordBody::Found(of) if !of.is_empty()), "nothing is nested");
    }
    // No other record holds one whose message is not a map.
    let Some(own) = all.records.last().map(|own| Record::decode(&own.plain).expect("it is a record")) else { return };
    assert_eq!((own.client, own.number, &own.previous), (record.client, record.number, &record.previous));
    assert_eq!(
        (&own.seen, own.time, &own.claims, &own.closed),
        (&record.seen, record.time, &record.claims, &record.closed)
    );
    let contents = Contents::new([found.clone()]);
    assert!(contents.superfluous(|_, _| true).is_empty(), "nothing else holds it");
    let taken = contents.counting().of(found, &Done::new(all.past.iter()));
    assert!(taken.records.len() <= all.records.len());
    Chains::new([Link { name, digest, record }]);
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut framed = (bytes.len() as u32).to_le_bytes().to_vec();
    framed.extend_from_slice(bytes);
    check(&framed);
    framed.resize(framed.len().next_multiple_of(1024), 0);
    check(&framed);
});
