//! Finds the segments of a pack whose index is lost: each one tells its own length, so they are found one after the
//! other (SPEC §5.2). Behind a damaged segment head, every position is tried as the beginning of the next one.

use rayon::prelude::*;

use crate::id::ObjectName;
use crate::limits::{PACK_LEN_MAX, SEGMENT_TARGET};
use crate::pack::reader::object_key;
use crate::pack::segment::{open_segment, read_body};
use crate::pack::{Footer, PackError, PackReader, SegmentEntry};
use crate::seal::{Decompressor, HEADER_LEN, Method, ObjectKind, ObjectOpener, SEGMENT_HEAD_LEN};

/// Give up after this many consecutive damaged segment heads.
const HEADS_LOST: u32 = 4;
/// Longest segment, in bytes, behind which the next one is searched for: longer ones are written only with unusual
/// chunk sizes.
const SEGMENT_LEN: usize = SEGMENT_TARGET + (512 << 10);

impl PackReader<'_> {
    /// The footer of a pack, rebuilt from its segments. Segments that cannot be opened have no chunks in it.
    ///
    /// # Errors
    /// If the pack cannot be read, or not even its header can be opened.
    pub fn scan(
        &self,
        kind: ObjectKind,
        name: ObjectName,
        len: u64,
        decompressor: &mut Decompressor,
    ) -> Result<Footer, PackError> {
        let key = object_key(kind, name);
        let opener = self.opener(kind, name)?;
        let bytes = self.store().get_range(&key, 0, len.min(PACK_LEN_MAX) as usize)?;
        // The segments end where the padding begins: nothing behind it needs to be searched.
        let padding = opener.padding_start();
        let end = bytes.windows(padding.len()).position(|window| window == padding).unwrap_or(bytes.len());
        let bytes = &bytes[..end];
        let mut footer = Footer::default();
        let mut at = HEADER_LEN;
        loop {
            let number = footer.segments.len() as u32;
            let Some(rest) = bytes.get(at..).filter(|rest| rest.len() > SEGMENT_HEAD_LEN) else { break };
            let Ok(body_len) = opener.segment_body_len(number, rest) else {
                let Some((skipped, distance)) = next_head(&opener, number, rest) else { break };
                footer.segments.push(unreadable(distance));
                footer.segments.extend((1..skipped).map(|_| unreadable(0)));
                at += distance;
                continue;
            };
            let sealed_len = SEGMENT_HEAD_LEN + body_len as usize;
            let Some(sealed) = rest.get(..sealed_len) else { break };
            let mut plain = Vec::with_capacity(sealed_len);
            let opened = open_segment(self.keys(), &opener, &key, number, sealed, None, decompressor);
            let entry = match opened {
                Ok(segment) if opener.open_segment(number, sealed, &mut plain).is_ok() => {
                    read_body(&plain).ok().map(|body| SegmentEntry {
                        sealed_len: sealed_len as u32,
                        method: body.method,
                        raw_len: body.raw_len,
                        chunks: segment.chunks.iter().map(|chunk| (chunk.id, chunk.len)).collect(),
                    })
                }
                Err(error @ PackError::Newer { .. }) => return Err(error),
                _ => None,
            };
            footer.segments.push(entry.unwrap_or_else(|| unreadable(sealed_len)));
            at += sealed_len;
        }
        Ok(footer)
    }
}

/// An entry of this length without chunks.
fn unreadable(sealed_len: usize) -> SegmentEntry {
    SegmentEntry { sealed_len: sealed_len as u32, method: Method::Raw, raw_len: 0, chunks: Vec::new() }
}

/// Searches for a segment head behind a damaged one. Returns how many numbers and how many bytes further it is.
fn next_head(opener: &ObjectOpener, number: u32, rest: &[u8]) -> Option<(u32, usize)> {
    (1..=HEADS_LOST).find_map(|skipped| {
        let last = rest.len().saturating_sub(SEGMENT_HEAD_LEN).min((skipped as usize + 1) * SEGMENT_LEN);
        let is_head = |at: &usize| opener.segment_body_len(number + skipped, &rest[*at..]).is_ok();
        (1..last + 1).into_par_iter().with_min_len(1 << 12).find_first(is_head).map(|at| (skipped, at))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::chunk::ChunkParams;
    use crate::id::VaultId;
    use crate::pack::{FinishedPack, PackWriter, SegmentBuilder};
    use crate::seal::{Compressor, Keys, MasterKey, WriterKey};
    use crate::store::testing::mem::MemStore;
    use crate::store::{ObjectKey, Store};

    fn keys() -> Keys {
        let master = MasterKey::from_bytes(&[1; 32]);
        Keys::new(&master, &WriterKey::derive(&master), VaultId::new([2; 16]), ChunkParams::default())
    }

    /// A pack of six segments.
    fn pack(keys: &Keys) -> FinishedPack {
        let finished = Mutex::new(None);
        let writer = PackWriter::new(keys, ObjectKind::Pack, true, |pack| {
            *finished.lock().unwrap() = Some(pack);
            true
        });
        let (mut compressor, mut decompressor) = (Compressor::new(1).unwrap(), Decompressor::new().unwrap());
        for number in 0..6_u8 {
            let mut builder = SegmentBuilder::default();
            for part in 0..3_u8 {
                builder.push(
                    keys,
                    |buffer| buffer.extend((0..2000_u32).map(|i| (i * 7) as u8 ^ number ^ part << 5)),
                    |_| true,
                );
            }
            writer.put(builder.compress(&mut compressor), &mut decompressor).unwrap();
        }
        writer.finish().unwrap();
        drop(writer);
        finished.into_inner().unwrap().unwrap()
    }

    /// Damages a pack, and checks which of its segments are found.
    fn check(damage: impl Fn(&mut Vec<u8>, &[usize]), found: &[usize]) {
        let keys = keys();
        let pack = pack(&keys);
        let mut starts = vec![HEADER_LEN];
        for entry in &pack.footer.segments {
            starts.push(starts.last().unwrap() + entry.sealed_len as usize);
        }
        let mut bytes = pack.bytes.to_vec();
        damage(&mut bytes, &starts);
        let (store, len) = (MemStore::new(), bytes.len() as u64);
        store.put(&ObjectKey::Named(crate::store::Kind::Pack, pack.name), bytes.into()).unwrap();
        let reader = PackReader::new(&store, &keys);
        let footer = reader.scan(pack.kind, pack.name, len, &mut Decompressor::new().unwrap()).unwrap();
        let mut at = HEADER_LEN;
        for (number, entry) in footer.segments.iter().enumerate() {
            if found.contains(&number) {
                assert_eq!((entry, at), (&pack.footer.segments[number], starts[number]));
            } else {
                assert!(entry.chunks.is_empty(), "segment {number}");
            }
            at += entry.sealed_len as usize;
        }
        assert!(found.iter().all(|number| *number < footer.segments.len()), "{}", footer.segments.len());
    }

    #[test]
    fn segments_are_found_without_the_footer_and_behind_damage() {
        let all = [0, 1, 2, 3, 4, 5];
        check(|_, _| {}, &all);
        check(|bytes, starts| bytes[starts[6]..].fill(0), &all);
        check(|bytes, starts| bytes.truncate(starts[6]), &all);
        check(|bytes, starts| bytes.truncate(starts[4] + 100), &all[..4]);
        check(|bytes, _| bytes.extend([9; 500]), &all);
        check(|bytes, starts| bytes[starts[2] + 60] ^= 1, &[0, 1, 3, 4, 5]);
        check(|bytes, starts| bytes[starts[2] + 30] ^= 1, &[0, 1, 3, 4, 5]);
        check(|bytes, starts| bytes[starts[1] + 3..starts[3] + 20].fill(0), &[0, 4, 5]);
        check(|bytes, starts| bytes[starts[0]..=starts[5]].fill(7), &[]);
    }
}
