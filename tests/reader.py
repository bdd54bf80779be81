#!/usr/bin/env python3
"""Reads a vault without the program vault. Written from SPEC.md alone, as proof that SPEC.md is enough.

    reader.py VAULT list                        the snapshots, oldest first
    reader.py VAULT extract SNAPSHOT PATH OUT   one file or one folder of a snapshot ('' for all of it), content only
    reader.py VAULT digest SNAPSHOT PATH        the digest of a file or folder
    reader.py VAULT verify                      every object and every chunk

SNAPSHOT is an id, its start, or 'latest'. VAULT_PASSWORD holds the password (or recovery key).
Needs: pip install blake3 zstandard argon2-cffi PyNaCl msgpack
"""
import hmac, os, re, struct, sys, time, unicodedata
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
import msgpack, zstandard
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as aead_open
from nacl.exceptions import CryptoError

FOLDERS = {1: "packs", 2: "meta", 3: "log"}
SECTIONS = {1: "segment head", 2: "segment body", 3: "footer", 4: "locator", 5: "record"}

class Damaged(Exception):
    """Something is not as SPEC.md says."""
def need(condition, what):
    if not condition:
        raise Damaged(what)
def known(condition, what):
    need(condition, f"written by a newer vault (unknown {what})")
def derive(context, material):
    return blake3(material, derive_key_context=context).digest()
def keyed(key, data, length=32):
    return blake3(data, key=key).digest(length=length)

def unseal(key, nonce, aad, sealed, what):
    need(len(sealed) >= 16, f"{what} is cut short")
    try:
        return aead_open(sealed, aad, nonce, key)
    except CryptoError:
        raise Damaged(f"{what} does not open") from None

class Bytes:
    """§2: takes fields off the front of a byte string."""
    def __init__(self, data):
        self.data, self.at = data, 0
    def take(self, count):
        need(self.at + count <= len(self.data), "the bytes end too early")
        self.at += count
        return self.data[self.at - count:self.at]
    def varint(self, limit=(1 << 64) - 1):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        need(byte < 0x80 and (byte or not shift) and value <= limit, "a number is malformed or over its limit")
        return value
    def rest(self):
        return self.take(len(self.data) - self.at)
    def lengths(self, raw_length):
        """The lengths of a segment's chunks (§5.2, §5.3)."""
        lengths = [self.varint(4 << 20) for _ in range(self.varint(1 << 18))]
        need(lengths and all(lengths) and sum(lengths) == raw_length, "the lengths of the chunks do not add up")
        return lengths

def listed(folder, fans_out):
    """§3: names of objects and their paths; what is foreign is passed over."""
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        if not fans_out and re.fullmatch("[0-9a-f]{32}", name) and os.path.isfile(path):
            yield bytes.fromhex(name), path
        elif fans_out and re.fullmatch("[0-9a-f]{2}", name) and os.path.isdir(path):
            yield from ((inner, at) for inner, at in listed(path, False) if inner.hex().startswith(name))

def vault_file(path):
    """§4.1: the vault id; None if the file is missing or damaged."""
    text = Path(path).read_bytes() if os.path.isfile(path) else b""
    head, _, last = text.rpartition(b"blake3 ")
    if not text.startswith(b"vault archive, format ") or last != blake3(head).hexdigest().encode() + b"\n":
        return None
    known(head.startswith(b"vault archive, format 1\n"), "format version")
    found = re.fullmatch(rb"[^\n]*\nid ([0-9a-f]{32})\nfeatures ([0-9a-f]{16})\n[^\n]*\n", head)
    known(not found or int(found[2], 16) == 0, "feature")
    return found and bytes.fromhex(found[1].decode())

def recovery_key(text):
    """§4.5: the secret, or None if the text is no recovery key."""
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    digits = re.sub(r"[\s_.\-\u2010-\u2015\u2212]", "", text).upper().translate(str.maketrans("OIL", "011"))
    if len(digits) != 30 or set(digits) - set(alphabet): return None
    value = sum(alphabet.index(digit) << 5 * place for place, digit in enumerate(reversed(digits)))
    secret = (value >> 22).to_bytes(16, "big")
    check = int.from_bytes(derive("vault 2026 recovery key check", secret)[:3], "big") >> 2
    return secret if value & 0x3FFFFF == check else None

def parse_slot(slot):
    """§4.2: how the secret is stretched, and its costs."""
    need(slot[:8] == b"vaultkey" and blake3(slot[:-32]).digest() == slot[-32:], "it is no key slot, or damaged")
    version, method, lanes, memory, passes, flags = struct.unpack("<HBBIII", slot[8:24])
    known(version == 1, "version of a key slot")
    need(len(slot) == 592, "its length is wrong")
    known(flags == 0 and method in (1, 2), "flags of a key slot, or way to stretch a secret")
    need(method == 2 or 19456 <= memory <= 2097152 and 1 <= passes <= 16 and memory * passes <= 8 << 20
         and 1 <= lanes <= 16, "the costs of its password are out of bounds")
    return method, (passes, memory, lanes)

def open_slot(slot, secret):
    """§4.2: the master key and the writer's key, or None if the secret is not that of the slot."""
    method, costs = parse_slot(slot)
    stretched = derive("vault 2026 slot secret", slot[56:88] + secret) if method == 2 else \
        hash_secret_raw(secret, slot[56:88], *costs, 32, Type.ID, 19)
    if not hmac.compare_digest(keyed(derive("vault 2026 slot commitment", stretched), slot[:88]), slot[88:120]):
        return None
    ring = unseal(derive("vault 2026 slot kek", stretched), slot[120:144], slot[:120], slot[144:416], "the keyring")
    version, master, writer, *_, delivery, features = struct.unpack("<B32s32sIIIQBQ", ring[:94])
    need(version > 1, "it was made by a pre-release of vault")
    known(version == 2 and delivery in (0, 1) and features == 0, "keyring version, delivery or feature")
    need(not any(ring[94:]), "the padding of the keyring is not zero")
    return master, writer

def password(text):
    """§4.2: the bytes of a password that are stretched."""
    secret = os.fsencode(text)
    try:
        return unicodedata.normalize("NFC", secret.decode()).encode()
    except UnicodeDecodeError:
        return secret

def unlock(store, text):
    """§4.6: the vault id, the master key and the writer's key."""
    vault = vault_file(os.path.join(store, "VAULT"))
    slots, trouble = {}, []
    for name, path in listed(os.path.join(store, "keys"), False):
        slot = Path(path).read_bytes()
        try:
            slots[slot] = parse_slot(slot)
        except (Damaged, struct.error) as error:
            trouble.append(f"keys/{name.hex()}: {error}")
    if any(slot[24:40] == vault for slot in slots):
        slots = {slot: parsed for slot, parsed in slots.items() if slot[24:40] == vault}
    in_order = sorted(slots, key=lambda slot: struct.unpack("<I", slot[12:16])[0] * struct.unpack("<I", slot[16:20])[0])
    for method, secret in (2, recovery_key(text)), (1, password(text)):
        for slot in [slot for slot in in_order if slots[slot][0] == method and secret]:
            try:
                if keys := open_slot(slot, secret):
                    return slot[24:40], *keys
            except Damaged as error:
                trouble.append(str(error))
    raise Damaged("; ".join(trouble) or "the password is wrong, or there is no vault")

class Object:
    """§4.3: a sealed object."""
    def __init__(self, vault, keys, kind, name, path):
        self.vault, self.kind, self.name = vault, kind, name
        wrap_key, index_key = keys
        self.index_key = keyed(index_key, vault + bytes([kind]) + name)
        self.data = Path(path).read_bytes()
        header = self.data[:120]
        need(len(self.data) >= 120 + 40 + 32 and header[:8] == b"vaultobj", "it is no object of a vault")
        version, found, wrap, length, flags = struct.unpack("<HBBHH", header[8:16])
        known(version == 1 and flags == 0 and wrap == 1, "version, flags or way to wrap a key")
        need(length == 72 and found == kind, "its header is malformed")
        aad = b"vaultobj wrap" + vault + name + header[:16]
        self.key = unseal(wrap_key, header[48:72], aad, header[72:120], "the header")
        bound = header[:16] + vault + name + header[48:120]
        commitment = keyed(derive("vault 2026 object commitment", self.key), bound)
        need(hmac.compare_digest(commitment, header[16:48]), "the header does not match its key")
        need(blake3(self.data[:-32]).digest() == self.data[-32:], "the trailer does not fit")
    def section(self, tag, number, nonce, sealed):
        aad = self.vault + bytes([self.kind]) + self.name + bytes([tag]) + struct.pack("<I", number)
        key = derive("vault 2026 section " + SECTIONS[tag], self.index_key if tag in (3, 4) else self.key)
        return unseal(key, nonce, aad, sealed, f"{SECTIONS[tag]} {number}")
    def sealed(self, tag, start, end):
        return self.section(tag, 0, self.data[start:start + 24], self.data[start + 24:end])
    def footer(self):
        """§5.3, §5.4: for each segment its offset, its length, and its chunks (id, length)."""
        end = len(self.data) - 96
        offset, length, segments_end, count = struct.unpack("<QIQI", self.sealed(4, end, end + 64))
        need(offset + length == end and 40 <= length <= 192 << 20 and segments_end <= offset, "the locator is wrong")
        plain, segments, at = Bytes(self.sealed(3, offset, end)), [], 120
        known(plain.take(1) == b"\1", "version of a footer")
        for _ in range(plain.varint(1 << 20)):
            sealed_length = plain.varint()
            known(plain.take(1) in (b"\0", b"\1"), "method of a segment")
            lengths = plain.lengths(plain.varint(8 << 20))
            segments.append((at, sealed_length, [(plain.take(16), length) for length in lengths]))
            at += sealed_length
        need(not plain.rest() and len(segments) == count and at == segments_end, "footer and locator do not agree")
        return segments
    def segment(self, number, offset, length):
        """§5.2: the chunks of a segment."""
        data = self.data[offset:offset + length]
        head = self.section(1, number, data[:24], data[24:44])
        need(head == struct.pack("<I", len(data) - 44), "a segment is not of the length that its head says")
        plain = Bytes(self.section(2, number, data[:24], data[44:]))
        method, raw_length = plain.take(1), plain.varint(8 << 20)
        known(method in (b"\0", b"\1"), "method of a segment")
        lengths, raw = plain.lengths(raw_length), plain.rest()
        if method == b"\1":
            need(zstandard.frame_content_size(raw) == raw_length, "the frame states another size")
            unzip = zstandard.ZstdDecompressor().decompressobj()
            raw = unzip.decompress(raw)
            need(unzip.eof and not unzip.unused_data, "the frame is not exactly the payload")
        need(len(raw) == raw_length, "the payload has another length")
        chunks = Bytes(raw)
        return [chunks.take(length) for length in lengths]

def by_cause(records):
    """§8.3: all names in the order of cause."""
    chains = {}
    for name, record in sorted(records.items(), key=lambda item: (item[1]["c"], item[1]["n"], item[0])):
        numbers = chains.setdefault(record["c"], [])
        if not numbers or numbers[-1][0] != record["n"]:
            numbers.append((record["n"], []))
        numbers[-1][1].append(name)
    done, depths, row = dict.fromkeys(chains, 0), {client: [] for client in chains}, []
    def upto(client, number):
        return sum(other <= number for other, _ in chains[client])
    def depth(client):
        seen = [(other, upto(other, number)) for name in chains[client][done[client]][1]
                for other, number in records[name]["s"] if other != client and other in chains]
        if all(count <= done[other] for other, count in seen):
            return 1 + max([*depths[client][-1:], *(depths[other][count - 1] for other, count in seen if count)], default=0)
    while left := sorted(client for client in chains if done[client] < len(chains[client])):
        ready = [(found, client) for client in left if (found := depth(client)) is not None]
        found, client = min(ready, default=(1 + max(depths[left[0]][-1:], default=0), left[0]))
        row += chains[client][done[client]][1]
        depths[client].append(found)
        done[client] += 1
    return row

def effective(times):
    """§8.3: the effective date of each record of a place, and whether it is an outlier."""
    ends, before = [], []
    for at, when in enumerate(times):
        length = sum(times[end] <= when for end in ends)
        before.append(ends[length - 1] if length else None)
        ends[length:length + 1] = [at]
    believed, at = set(), ends[-1] if ends else None
    while at is not None:
        believed.add(at)
        at = before[at]
    dates = []
    for at, when in enumerate(times):
        if at not in believed:
            when = max([when, *dates[-1:]])
            when = min([when, *[times[next] for next in sorted(believed) if next > at][:1]])
        dates.append(when)
    return [(date, at not in believed) for at, date in enumerate(dates)]

def snapshots(records):
    """§8.3: the snapshots in their order, each with its date, name and body."""
    place = {record["c"]: record["c"] for record in records.values()}
    for record in records.values():
        for retired in record["b"].get("retires", []) if record["k"] == 1 else []:
            old, new = place.get(retired), place[record["c"]]
            place = {client: new if at == old else at for client, at in place.items()}
    row = by_cause(records)
    positions, dates = {name: at for at, name in enumerate(row)}, {}
    for one in set(place.values()):
        names = [name for name in row if place[records[name]["c"]] == one]
        dates.update(zip(names, effective([records[name]["t"] for name in names])))
    taken, last = {}, {}
    for name in (name for name in row if records[name]["k"] == 2):
        body, (when, outlier) = records[name]["b"], dates[name]
        date = when if outlier and not body.get("given") else min(body["time"], when)
        if not body.get("given"):
            key = place[records[name]["c"]], body["source"], body["host"]
            last[key] = date = max([date, *filter(None, [last.get(key)])])
        taken[name] = [date, positions[name]]
    winners, claims = {}, {}
    for name in taken:
        claims[name] = [old for old in records[name]["b"].get("replaces", []) if positions.get(old, -1) < positions[name]]
        for old in claims[name]:
            winners[old] = min(name, winners.get(old, name))
    def replaced(name):
        return {old for direct, winner in winners.items() if winner == name for old in {direct} | replaced(direct)}
    gone = {name for record in records.values() if record["k"] == 3 for name in record["b"]} | set(winners)
    gone |= {name for name, olds in claims.items() if olds and all(winners[old] != name for old in olds)}
    def known(name):
        return {old for old in replaced(name) if old in taken}
    found = [(*max([taken[old] for old in known(name) if not known(old)] or [taken[name]]), name, records[name]["b"])
             for name in taken if name not in gone]
    return sorted(found, key=lambda snapshot: snapshot[:2])

class Vault:
    """§9.1: everything, found from the store alone."""
    def __init__(self, store, password):
        self.id, master, writer = unlock(store, password)
        self.keys = derive("vault 2026 object wrap", master), derive("vault 2026 index", writer)
        self.id_key = derive("vault 2026 chunk id", writer)
        self.bad, self.where, self.packs, records = [], {}, {}, {}
        for name, path in listed(os.path.join(store, "log"), False):
            with self.guard(3, name):
                records[name] = self.record(name, path)
        for found in [found for record in records.values() if record["k"] == 8 for found in record["b"]]:
            if found["n"] not in records:
                records[found["n"]] = self.message(found["r"])
        self.snapshots = snapshots(records)
        for kind in (1, 2):
            for name, path in listed(os.path.join(store, FOLDERS[kind]), True):
                with self.guard(kind, name):
                    segments = Object(self.id, self.keys, kind, name, path).footer()
                    self.packs[name] = kind, path, segments
                    for number, (_, _, chunks) in enumerate(segments):
                        for index, (id, _) in enumerate(chunks):
                            self.where.setdefault(id, []).append((name, number, index))
    @contextmanager
    def guard(self, kind, name):
        """One damaged object never keeps the others from being used."""
        try:
            yield
        except (Damaged, OSError, ValueError, KeyError, struct.error) as error:
            self.bad.append(f"{FOLDERS[kind]}/{name.hex()}: {error}")
    def record(self, name, path):
        """§8.1: a record with its body."""
        object = Object(self.id, self.keys, 3, name, path)
        return self.message(object.sealed(5, 120, len(object.data) - 32))
    def message(self, plain):
        length = int.from_bytes(plain[:4], "little")
        need(4 + length <= len(plain) and len(plain) % 1024 == 0 and not any(plain[4 + length:]), "bad padding")
        record = msgpack.unpackb(plain[4:4 + length])
        known(record["v"] == 1, "version of a record")
        need(record["n"] > 0, "its number is zero")
        return {**record, "b": msgpack.unpackb(record["b"])} if 1 <= record["k"] <= 9 else record
    @lru_cache(maxsize=64)
    def segment(self, name, number):
        kind, path, segments = self.packs[name]
        offset, length, expected = segments[number]
        chunks = Object(self.id, self.keys, kind, name, path).segment(number, offset, length)
        found = [(keyed(self.id_key, chunk, 16), len(chunk)) for chunk in chunks]
        need(found == expected, f"segment {number}: a chunk is not what its id says")
        return chunks
    def chunk(self, id):
        trouble = "it is in no pack"
        for name, number, index in self.where.get(id, []):
            try:
                return self.segment(name, number)[index]
            except (Damaged, OSError) as error:
                trouble = f"{name.hex()}: {error}"
        raise Damaged(f"chunk {id.hex()}: {trouble}")
    def stream(self, stream):
        """§6: the bytes of a stream, chunk by chunk."""
        length, depth, ids = stream
        need(depth <= 4 and len(ids) <= 1024 and (length == 0) == (not ids), "a stream is out of bounds")
        for level in range(depth + 1):
            need(len(ids) % 16 == 0, "a list of ids has a wrong length")
            chunks = (self.chunk(ids[at:at + 16]) for at in range(0, len(ids), 16))
            if level < depth:
                ids = b"".join(chunks)
        for chunk in chunks:
            length -= len(chunk)
            need(length >= 0, "a stream is longer than it says")
            yield chunk
        need(length == 0, "a stream is shorter than it says")
    def listing(self, stream):
        """§7.1, §7.2: the entries of a folder."""
        data, before = b"".join(self.stream(stream)), b""
        known(data[:1] in (b"", b"\1"), "version of a listing")
        unpacker = msgpack.Unpacker(max_buffer_size=0)
        unpacker.feed(data[1:])
        for entry in unpacker:
            name = entry["n"]
            need(name > before and name not in (b".", b"..") and not set(name) & set(b"/\0") and len(name) <= 1024,
                 "a name is forbidden or out of order")
            known(0 <= entry.get("k", 0) <= 6, "kind of file")
            before = name
            yield entry
        need(unpacker.tell() == len(data[1:]), "a listing ends in the middle of an entry")
    def find(self, snapshot, path):
        entry = {"k": 1, "c": snapshot["tree"]}
        for part in [part for part in os.fsencode(path).split(b"/") if part]:
            inside = self.listing(entry["c"]) if entry.get("k", 0) == 1 else []
            entry = next((inner for inner in inside if inner["n"] == part), None)
            need(entry, f"there is no {path} in the snapshot")
        return entry
    def digest(self, entry):
        """§7.5: equal for equal names and contents."""
        if entry.get("k", 0) != 1:
            return derive("vault 2026 content digest", msgpack.packb({k: entry[k] for k in "kschtd" if k in entry}))[:16]
        parts = {False: b"", True: b""}
        for inner in self.listing(entry["c"]):
            name, length = inner["n"], len(inner["n"])
            prefix = bytes([length]) if length < 128 else bytes([length & 0x7F | 0x80, length >> 7])
            parts[inner.get("k", 0) == 1] += prefix + name + self.digest(inner)
        return derive("vault 2026 folder digest", parts[False] + parts[True])[:16]
    def extract(self, entry, out):
        """Writes a file, or a folder and all below it; returns the number of files."""
        kind = entry.get("k", 0)
        if kind == 1:
            os.mkdir(out)
            return sum(self.extract(inner, os.path.join(out, inner["n"])) for inner in self.listing(entry["c"]))
        if kind == 2:
            os.symlink(entry["t"], out)
        if kind == 0:
            with open(out, "xb") as file:
                self.write(entry, file)
        return 1
    def write(self, entry, file):
        """§7.3: the content, laid out between the holes."""
        size, pairs, runs, at = entry.get("s", 0), b"", [], 0
        for form, holes in entry.get("h", {}).items():
            pairs = Bytes(holes if form == "i" else b"".join(self.stream(holes)))
        while pairs and pairs.at < len(pairs.data):
            distance, length = pairs.varint(), pairs.varint()
            runs.append((at, distance))
            at += distance + length
            need(length > 0 and at <= size, "the list of holes is malformed")
        runs.append((at, size - at))
        need(sum(length for _, length in runs) == entry["c"][0], "the content does not fit between the holes")
        data, chunks = b"", self.stream(entry["c"])
        for at, length in runs:
            file.seek(at)
            while length:
                data = data or next(chunks)
                written = file.write(data[:length])
                length, data = length - written, data[written:]
        need(next(chunks, None) is None, "the content is longer than the file")
        file.truncate(size)

def main(store, command, *args):
    vault = Vault(store, os.environ["VAULT_PASSWORD"])
    if command == "list":
        for date, _, name, body in vault.snapshots:
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(date[0]))
            print(name.hex(), when, body["source"], body["files"], body["verdict"], sep="\t")
    elif command in ("extract", "digest"):
        snapshot, path, *out = args
        found = [body for *_, name, body in vault.snapshots if name.hex().startswith(snapshot) or snapshot == "latest"]
        need(len(found) == 1 or snapshot == "latest" and found, f"{len(found)} snapshots are meant by {snapshot}")
        entry = vault.find(found[-1], path)
        print(vault.digest(entry).hex() if command == "digest" else f"{vault.extract(entry, os.fsencode(*out))} files")
    elif command == "verify":
        for name, (kind, _, segments) in vault.packs.items():
            for number in range(len(segments)):
                with vault.guard(kind, name):
                    vault.segment(name, number)
        print(len(vault.packs), "packs", len(vault.where), "chunks", len(vault.snapshots), "snapshots")
    for bad in vault.bad:
        print("damaged:", bad, file=sys.stderr)
    sys.exit(4 if vault.bad else 0)

if __name__ == "__main__":
    try:
        main(*sys.argv[1:]) if sys.argv[2:3] in (["list"], ["extract"], ["digest"], ["verify"]) else sys.exit(__doc__)
    except (Damaged, OSError) as error:
        sys.exit(f"error: {error}")
