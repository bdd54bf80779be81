//! Past records: records that nobody needs any more (SPEC §8.10), such as forgotten snapshots and the records that
//! forgot them. Of these a merge keeps only what other records rest on: the numbers that a client has used, and the
//! places in the order of all records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::id::{ClientId, Digest, ObjectName};
use crate::tree::Time;
use crate::varint::{self, DecodeError, Reader};

/// Nanoseconds in a second.
const NANOS: u64 = 1_000_000_000;

/// A retired client that will send nothing more: its last record, by number and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Closed(pub ClientId, pub u64, pub Digest);

/// The entry of a past record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PastRecord {
    /// Number of the record.
    pub number: u64,
    /// Name of its object.
    pub name: ObjectName,
    /// Date of its client's clock.
    pub time: Time,
    /// Its depth in the order of cause (SPEC §8.3).
    pub depth: u64,
}

/// Past records of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Wire", try_from = "Wire")]
pub struct Past {
    /// The client.
    pub client: ClientId,
    /// Entries, by number and name.
    pub records: Vec<PastRecord>,
    /// The clients that the records close, by the records' numbers.
    pub closed: BTreeMap<u64, Vec<Closed>>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "c")]
    client: ClientId,
    #[serde(rename = "x")]
    records: ByteBuf,
    #[serde(rename = "z", default, skip_serializing_if = "Vec::is_empty")]
    closed: Vec<(u64, Vec<Closed>)>,
}

/// Encodes a difference as a number of few bytes: 0, -1, 1, -2, 2, …
const fn folded(difference: i64) -> u64 {
    (difference.cast_unsigned() << 1) ^ (difference >> 63).cast_unsigned()
}

const fn unfolded(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

impl From<Past> for Wire {
    fn from(past: Past) -> Self {
        let mut bytes = Vec::with_capacity(past.records.len() * 28);
        let (mut number, mut secs, mut depth) = (0_u64, 0_i64, 0_u64);
        for record in &past.records {
            varint::put(&mut bytes, record.number.wrapping_sub(number));
            bytes.extend_from_slice(record.name.as_bytes());
            varint::put(&mut bytes, folded(record.time.secs.wrapping_sub(secs)));
            varint::put(&mut bytes, record.time.nanos.into());
            varint::put(&mut bytes, folded(record.depth.wrapping_sub(depth).cast_signed()));
            (number, secs, depth) = (record.number, record.time.secs, record.depth);
        }
        Self { client: past.client, records: ByteBuf::from(bytes), closed: past.closed.into_iter().collect() }
    }
}

impl TryFrom<Wire> for Past {
    type Error = DecodeError;

    fn try_from(wire: Wire) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&wire.records);
        let mut records: Vec<PastRecord> = Vec::new();
        let (mut number, mut secs, mut depth) = (0_u64, 0_i64, 0_u64);
        while !reader.rest().is_empty() {
            let step = reader.number()?;
            number = number.checked_add(step).filter(|number| *number > 0).ok_or(DecodeError::Limit("a number"))?;
            let name = ObjectName::new(reader.array()?);
            secs = secs.wrapping_add(unfolded(reader.number()?));
            let nanos = reader.number()?;
            let nanos = u32::try_from(nanos).ok().filter(|nanos| u64::from(*nanos) < NANOS);
            depth = depth.wrapping_add(unfolded(reader.number()?).cast_unsigned());
            let time = Time { secs, nanos: nanos.ok_or(DecodeError::Limit("nanoseconds"))? };
            let record = PastRecord { number, name, time, depth };
            if records.last().is_some_and(|last| (last.number, last.name) >= (number, name)) {
                return Err(DecodeError::Limit("the order of records"));
            }
            records.push(record);
        }
        let mut closed: BTreeMap<u64, Vec<Closed>> = BTreeMap::new();
        for (number, clients) in wire.closed {
            closed.entry(number).or_default().extend(clients);
        }
        Ok(Self { client: wire.client, records, closed })
    }
}

/// Collects past records: one list for each client, by number and name.
#[derive(Debug, Default)]
pub struct Gathered(BTreeMap<ClientId, List>);

/// Past records of one client.
#[derive(Debug, Default)]
struct List {
    records: BTreeMap<(u64, ObjectName), PastRecord>,
    closed: BTreeMap<u64, Vec<Closed>>,
}

impl Gathered {
    /// Adds one record, unless it is there.
    pub fn insert(&mut self, client: ClientId, record: PastRecord, closed: &[Closed]) {
        let list = self.0.entry(client).or_default();
        let is_new = list.records.insert((record.number, record.name), record).is_none();
        if is_new && !closed.is_empty() {
            list.closed.insert(record.number, closed.to_vec());
        }
    }

    /// Adds all of a list.
    pub fn extend(&mut self, past: Past) {
        for record in past.records {
            let closed = past.closed.get(&record.number).map_or(&[][..], Vec::as_slice);
            self.insert(past.client, record, closed);
        }
    }

    /// One list for each client.
    pub fn into_lists(self) -> Vec<Past> {
        let list =
            |(client, List { records, closed })| Past { client, records: records.into_values().collect(), closed };
        self.0.into_iter().map(list).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::Digest;
    use crate::log::record::Held;
    use crate::msgpack;

    fn past(records: Vec<(u64, u8, i64, u32, u64)>) -> Past {
        let mut gathered = Gathered::default();
        for (number, name, secs, nanos, depth) in records {
            let record = PastRecord { number, name: ObjectName::new([name; 16]), time: Time { secs, nanos }, depth };
            let closed = Closed(ClientId::new([name; 16]), number, Digest::new([name; 32]));
            let closed: Vec<Closed> = [closed].into_iter().filter(|_| name.is_multiple_of(5)).collect();
            gathered.insert(ClientId::new([7; 16]), record, &closed);
        }
        gathered.into_lists().pop().unwrap_or(Past {
            client: ClientId::new([7; 16]),
            records: Vec::new(),
            closed: BTreeMap::new(),
        })
    }

    /// SPEC §12.6.
    const VECTOR_PAST: &str = "\
         81a1649183a163c41001010101010101010101010101010101a178c42c030909090909090909090909090909090980c8\
         ceb40d0614040a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a010003a17a9192079193c4100202020202020202020202020202\
         020205c4200303030303030303030303030303030303030303030303030303030303030303";

    #[test]
    fn the_spec_has_the_bytes() {
        let client = |byte: u8| ClientId::new([byte; 16]);
        let record = |number, name: u8, secs, nanos, depth| PastRecord {
            number,
            name: ObjectName::new([name; 16]),
            time: Time { secs, nanos },
            depth,
        };
        let past = Past {
            client: client(1),
            records: vec![record(3, 9, 1_800_000_000, 6, 10), record(7, 10, 1_799_999_999, 0, 8)],
            closed: [(7, vec![Closed(client(2), 5, Digest::new([3; 32]))])].into(),
        };
        let held = Held { records: Vec::new(), past: vec![past] };
        let bytes = msgpack::encode(&held).unwrap();
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex.concat(), VECTOR_PAST);
        assert_eq!(msgpack::decode::<Held>(&bytes).unwrap(), held);
    }

    #[test]
    fn an_hourly_record_takes_few_bytes() {
        let hourly =
            (1..=1000_u64).map(|hour| (hour, 1, 1_700_000_000 + hour.cast_signed() * 3600, 999_999_999, hour * 10));
        let len = msgpack::encode(&past(hourly.collect())).unwrap().len();
        assert!(len < 28 * 1000, "{len}");
    }

    #[test]
    fn what_is_out_of_order_or_of_bounds_is_refused() {
        let decode = |records: &[u8]| {
            Past::try_from(Wire {
                client: ClientId::new([7; 16]),
                records: ByteBuf::from(records.to_vec()),
                closed: Vec::new(),
            })
        };
        let entry = |step: u8, name: u8| [&[step][..], &[name; 16], &[2, 0, 2]].concat();
        assert_eq!(decode(&[entry(1, 1), entry(1, 1)].concat()).unwrap().records.len(), 2);
        // Two records with one number: a fork.
        assert_eq!(decode(&[entry(1, 1), entry(0, 2)].concat()).unwrap().records.len(), 2);
        assert!(decode(&[entry(1, 2), entry(0, 1)].concat()).is_err(), "names fall");
        assert!(decode(&[entry(1, 1), entry(0, 1)].concat()).is_err(), "a record occurs twice");
        assert!(decode(&entry(0, 1)).is_err(), "there is no number 0");
        assert!(decode(&entry(1, 1)[..18]).is_err(), "it is cut short");
        let mut huge = Vec::new();
        varint::put(&mut huge, u64::MAX);
        huge.extend([[1; 16].as_slice(), &[2, 0, 2]].concat());
        assert!(decode(&huge).is_ok());
        assert!(decode(&[huge, entry(1, 2)].concat()).is_err(), "no number is beyond 64 bits");
        let mut late = [&[1][..], &[1; 16], &[2]].concat();
        varint::put(&mut late, NANOS);
        late.push(2);
        assert!(decode(&late).is_err(), "a second has no more nanoseconds");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(records in proptest::collection::vec(
            (1..u64::MAX, any::<u8>(), any::<i64>(), 0..1_000_000_000_u32, any::<u64>()), 0..20,
        )) {
            let past = past(records);
            let bytes = msgpack::encode(&past).unwrap();
            prop_assert_eq!(msgpack::decode::<Past>(&bytes).unwrap(), past);
        }
    }
}
