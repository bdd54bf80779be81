#!/usr/bin/env python3
"""Reads a vault without the program vault. Written from SPEC.md alone, as proof that SPEC.md is enough.

    reader.py VAULT list                        the snapshots, oldest first
    reader.py VAULT extract SNAPSHOT PATH OUT   one file or one folder of a snapshot ('' for all of it), content only
    reader.py VAULT digest SNAPSHOT PATH        the digest of a file or folder
    reader.py VAULT entries SNAPSHOT            every entry of a snapshot, one line of JSON each
    reader.py VAULT verify                      every object and every chunk
    reader.py SPEC.md vectors                   every test vector of that document (its §12)

SNAPSHOT is an id, its start, or 'latest'. VAULT_PASSWORD holds the password (or recovery key).
Needs: pip install blake3 zstandard argon2-cffi PyNaCl msgpack
"""
import hmac, json, os, re, struct, sys, time, unicodedata
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
import msgpack, zstandard
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as aead_open
from nacl.exceptions import CryptoError

FOLDERS = {1: "packs", 2: "meta", 3: "log"}
COMMANDS = "list", "extract", "digest", "entries", "verify", "vectors"
MASKS, POWERS = {}, str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
SECTIONS = {1: "segment head", 2: "segment body", 3: "footer", 4: "locator", 5: "record", 6: "index range", 7: "index packs"}

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

def unpack(data):
    """§2: one msgpack value; a key that is there twice or that is critical and unknown is refused."""
    return msgpack.unpackb(data, object_pairs_hook=checked)
def checked(pairs):
    need(all(isinstance(key, str) for key, _ in pairs) and len(dict(pairs)) == len(pairs), "a map has a forbidden key")
    known(not any(key.startswith("!") for key, _ in pairs), "critical key")
    return dict(pairs)

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

def vault_file(text):
    """§4.1: the vault id; None if the file is damaged."""
    head, _, last = text.rpartition(b"blake3 ")
    if not text.startswith(b"vault archive, format ") or last != blake3(head).hexdigest().encode() + b"\n":
        return None
    known(head.startswith(b"vault archive, format 1\n"), "format version")
    found = re.fullmatch(rb"[^\n]*\nid ([0-9a-f]{32})\nfeatures ([0-9a-f]{16})\n[^\n]*\n", head)
    known(not found or int(found[2], 16) in (0, 1), "feature")  # 1: a mirror
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
    """§4.2: the keyring, or None if the secret is not that of the slot."""
    method, costs = parse_slot(slot)
    stretched = derive("vault 2026 slot secret", slot[56:88] + secret) if method == 2 else \
        hash_secret_raw(secret, slot[56:88], *costs, 32, Type.ID, 19)
    if not hmac.compare_digest(keyed(derive("vault 2026 slot commitment", stretched), slot[:88]), slot[88:120]):
        return None
    ring = unseal(derive("vault 2026 slot kek", stretched), slot[120:144], slot[:120], slot[144:416], "the keyring")
    version, master, writer, *sizes, made, delivery, features = struct.unpack("<B32s32sIIIQBQ", ring[:94])
    need(version > 1, "it was made by a pre-release of vault")
    known(version == 2 and delivery in (0, 1) and features == 0, "keyring version, delivery or feature")
    need(not any(ring[94:]), "the padding of the keyring is not zero")
    return {"master": master, "writer": writer, "sizes": sizes, "made": made, "delivery": delivery}

def password(text):
    """§4.2: the bytes of a password that are stretched."""
    secret = os.fsencode(text)
    try:
        return unicodedata.normalize("NFC", secret.decode()).encode()
    except UnicodeDecodeError:
        return secret

def unlock(store, text):
    """§4.6: the vault id, the master key and the writer's key."""
    path = os.path.join(store, "VAULT")
    vault = vault_file(Path(path).read_bytes() if os.path.isfile(path) else b"")
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
                if ring := open_slot(slot, secret):
                    return slot[24:40], ring["master"], ring["writer"]
            except Damaged as error:
                trouble.append(str(error))
    raise Damaged("; ".join(trouble) or "the password is wrong, or there is no vault")

def slot_info(slot, master):
    """§4.2: purpose, when it was made, and label."""
    info = unseal(derive("vault 2026 slot info", master), slot[416:440], slot[:416], slot[440:560], "the info")
    purpose, made, length = struct.unpack("<BQB", info[:10])
    known(purpose in (1, 2, 3), "purpose of a key slot")
    need(length <= 64 and not any(info[10 + length:]), "the info is malformed")
    return purpose, made, info[10:10 + length].decode()

class Keys:
    """§4.4: what opens the objects of a vault."""
    def __init__(self, vault, master, writer):
        self.vault = vault
        self.wrap, self.index = derive("vault 2026 object wrap", master), derive("vault 2026 index", writer)
        self.chunk_id, self.nonce = derive("vault 2026 chunk id", writer), derive("vault 2026 nonce", writer)
        self.local = derive("vault 2026 local", writer)
        self.gear = struct.unpack("<256Q", blake3(writer, derive_key_context="vault 2026 gear table").digest(2048))

class Object:
    """§4.3: a sealed object."""
    def __init__(self, keys, kind, name, data):
        self.keys, self.kind, self.name, self.data = keys, kind, name, data
    @classmethod
    def read(cls, keys, kind, name, path):
        object = cls(keys, kind, name, Path(path).read_bytes())
        need(len(object.data) >= 120 + 40 + 32, "it is cut short")
        return object
    def trailer(self):
        need(blake3(self.data[:-32]).digest() == self.data[-32:], "the trailer does not fit")
    @property
    def wrap_aad(self):
        return b"vaultobj wrap" + self.keys.vault + self.name + self.data[:16]
    @cached_property
    def key(self):
        """The key that the header holds."""
        header, bound = self.data[:120], self.keys.vault + self.name
        need(header[:8] == b"vaultobj", "it is no object of a vault")
        version, found, wrap, length, flags = struct.unpack("<HBBHH", header[8:16])
        known(version == 1 and flags == 0 and wrap == 1, "version, flags or way to wrap a key")
        need(length == 72 and found == self.kind, "its header is malformed")
        key = unseal(self.keys.wrap, header[48:72], self.wrap_aad, header[72:120], "the header")
        commitment = keyed(derive("vault 2026 object commitment", key), header[:16] + bound + header[48:])
        need(hmac.compare_digest(commitment, header[16:48]), "the header does not match its key")
        return key
    @cached_property
    def index_key(self):
        return keyed(self.keys.index, self.keys.vault + bytes([self.kind]) + self.name)
    def aad(self, tag, number):
        return self.keys.vault + bytes([self.kind]) + self.name + bytes([tag]) + struct.pack("<I", number)
    def section(self, tag, number, nonce, sealed):
        key = derive("vault 2026 section " + SECTIONS[tag], self.index_key if tag in (3, 4, 6, 7) else self.key)
        return unseal(key, nonce, self.aad(tag, number), sealed, f"{SECTIONS[tag]} {number}")
    def sealed(self, tag, start, end):
        return self.section(tag, 0, self.data[start:start + 24], self.data[start + 24:end])
    def footer(self):
        """§5.4: for each segment its offset, its length, and its chunks (id, length)."""
        try:
            end = len(self.data) - 96
            offset, length, segments_end, count = struct.unpack("<QIQI", self.sealed(4, end, end + 64))
            need(offset + length == end and 40 <= length <= 192 << 20 and segments_end <= offset, "the locator is wrong")
            plain = self.sealed(3, offset, end)
        except Damaged:
            self.key  # tells whether it is newer, or of another vault
            raise
        segments = footer(plain)
        need(len(segments) == count and sum(segment[1] for segment in segments) + 120 == segments_end,
             "footer and locator do not agree")
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

def footer(data):
    """§5.3: the plaintext of a footer."""
    plain, segments, at = Bytes(data), [], 120
    known(plain.take(1) == b"\1", "version of a footer")
    for _ in range(plain.varint(1 << 20)):
        sealed_length = plain.varint()
        known(plain.take(1) in (b"\0", b"\1"), "method of a segment")
        lengths = plain.lengths(plain.varint(8 << 20))
        segments.append((at, sealed_length, [(plain.take(16), length) for length in lengths]))
        at += sealed_length
    need(not plain.rest(), "bytes follow a footer")
    return segments

def message(plain):
    """§8.1: the message of a record."""
    length = int.from_bytes(plain[:4], "little")
    need(4 + length <= len(plain) and not any(plain[4 + length:]), "bad padding")
    record = unpack(plain[4:4 + length])
    need(record["v"] > 0 and record["n"] > 0, "its version or its number is zero")
    if record["v"] > 1:
        return {**{key: record[key] for key in "cnpst"}, "k": 0, "b": []}
    return {**record, "b": unpack(record["b"])} if 1 <= record["k"] <= 13 else record

def past(client):
    """§8.10: what is left of records of a client that nobody needs any more, each with its depth."""
    plain, number, secs, depth, before = Bytes(client["x"]), 0, 0, 0, None
    def difference():
        value = plain.varint()
        return value >> 1 ^ -(value & 1)
    while plain.at < len(plain.data):
        number += plain.varint()
        name = plain.take(16)
        secs, nanos, depth = secs + difference(), plain.varint(10**9 - 1), depth + difference()
        need(number > 0 and (before is None or before < (number, name)), "records are out of order")
        before = number, name
        yield name, {"c": client["c"], "n": number, "s": [], "t": [secs, nanos], "k": 0, "b": [], "depth": depth}

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
        left = [records[name]["depth"] for name in chains[client][done[client]][1] if "depth" in records[name]]
        if left:
            return left[0]
        next = [records[name] for name in chains[client][done[client]][1]]
        seen = [tuple(seen) for record in next for seen in record["s"]]
        seen += [(records[old]["c"], records[old]["n"]) for record in next if record["k"] == 2
                 for old in record["b"].get("replaces", []) if old in records]
        seen = [(other, upto(other, number)) for other, number in seen if other != client and other in chains]
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

def sight(records, record):
    """§8.2: what the writer of a record had seen of each client, closed ones included."""
    named, seen = dict(map(tuple, record["s"])), dict(map(tuple, record["s"]))
    todo = [*seen.items(), (record["c"], record["n"])]
    while todo:
        client, upto = todo.pop()
        for other in records.values():
            if other["c"] == client and other["n"] <= upto:
                for closed, last, _ in other.get("z", []):
                    if closed != record["c"] and closed not in named and seen.get(closed, 0) < last:
                        seen[closed] = last
                        todo.append((closed, last))
    return seen

def unawaited(records):
    """§8.3: snapshots that nobody may have waited for."""
    upto, numbers = {}, {}
    for name, record in records.items():
        numbers.setdefault((record["c"], record["n"]), []).append(name)
        retired = record["b"].get("retires", []) if record["k"] == 1 else record["b"] if record["k"] == 6 else []
        if not retired:
            continue
        before = [sight(records, record)]
        before += [dict(map(tuple, other["s"])) for other in records.values() if other["c"] == record["c"] and other["n"] <= record["n"]]
        for client in retired:
            number = max(seen.get(client, 0) for seen in before)
            if client != record["c"]:
                upto[client] = min(number, upto.get(client, number))
    forked = {}
    for (client, number), names in numbers.items():
        if len(names) > 1:
            forked[client] = min(number, forked.get(client, number))
    return {name for name, record in records.items() if record["k"] == 2 and (
        record["n"] > upto.get(record["c"], record["n"]) or record["n"] >= forked.get(record["c"], record["n"] + 1))}

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
        dated = body.get("given") or body.get("origin") is not None
        date = when if outlier and not dated else min(body["time"], when)
        if not dated:
            key = place[records[name]["c"]], body["source"], body["host"]
            last[key] = date = max([date, *filter(None, [last.get(key)])])
        taken[name] = [date, positions[name]]
    forgotten = {name for record in records.values() if record["k"] == 3 for name in record["b"]}
    winners, claims, late = {}, {}, unawaited(records) - forgotten
    named = set()
    for name in sorted(taken, key=lambda name: -positions[name]):
        if name in named or name not in late:
            late.discard(name)
            named.update(records[name]["b"].get("replaces", []))
    for name in taken:
        claims[name] = [old for old in records[name]["b"].get("replaces", []) if positions.get(old, -1) < positions[name]]
        for old in claims[name] if name not in late else []:
            winners[old] = min(name, winners.get(old, name))
    gone = forgotten | set(winners)
    gone |= {name for name, olds in claims.items() if olds and all(winners.get(old) != name for old in olds)}
    places = {}
    for name in taken:
        named = [] if records[name]["b"].get("redated") else [places[old] for old in claims[name] if old in places]
        places[name] = max(named or [taken[name]])
    found = [(*places[name], name, records[name]["b"]) for name in taken if name not in gone]
    return sorted(found, key=lambda snapshot: snapshot[:2])

class Vault:
    """§9.1: everything, found from the store alone."""
    def __init__(self, store, password):
        self.keys = Keys(*unlock(store, password))
        self.bad, self.where, self.packs, records = [], {}, {}, {}
        for name, path in listed(os.path.join(store, "log"), False):
            with self.guard(3, name):
                records[name] = self.record(name, path)
        held = sorted((record["c"], record["n"], name) for name, record in records.items() if record["k"] == 8)
        held = [records[holder]["b"] for *_, holder in held]
        gone = {}
        for name, record in [item for body in held for client in body.get("d", []) for item in past(client)]:
            gone.setdefault(name, record)
        records.update(gone)
        for found in [found for body in held for found in body.get("r", [])]:
            if found["n"] not in records:
                records[found["n"]] = message(found["r"])
        self.snapshots = snapshots(records)
        for kind in (1, 2):
            for name, path in listed(os.path.join(store, FOLDERS[kind]), True):
                with self.guard(kind, name):
                    object = Object.read(self.keys, kind, name, path)
                    segments = object.footer()
                    object.trailer()
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
        object = Object.read(self.keys, 3, name, path)
        plain = object.sealed(5, 120, len(object.data) - 32)
        object.trailer()
        return message(plain)
    @lru_cache(maxsize=64)
    def segment(self, name, number):
        kind, path, segments = self.packs[name]
        offset, length, expected = segments[number]
        chunks = Object.read(self.keys, kind, name, path).segment(number, offset, length)
        found = [(keyed(self.keys.chunk_id, chunk, 16), len(chunk)) for chunk in chunks]
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
        unpacker = msgpack.Unpacker(max_buffer_size=0, object_pairs_hook=checked)
        unpacker.feed(data[1:])
        for entry in unpacker:
            name = entry["n"]
            need(name > before and name not in (b".", b"..") and not set(name) & set(b"/\0") and len(name) <= 1024,
                 "a name is forbidden or out of order")
            known(0 <= entry.get("k", 0) <= 6, "kind of file")
            before = name
            yield entry
        need(unpacker.tell() == len(data[1:]), "a listing ends in the middle of an entry")
    def entries(self, entry, path=b""):
        """Every entry below a folder, with its path."""
        for inner in self.listing(entry["c"]):
            yield path + inner["n"], inner
            if inner.get("k", 0) == 1:
                yield from self.entries(inner, path + inner["n"] + b"/")
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

def cut(data, gear, least, average, most):
    """§5.1: the lengths of the chunks of a stream."""
    bits, start, lengths = average.bit_length() - 1, 0, []
    while start < len(data):
        length = end = min(len(data) - start, most)
        border, value = min(average, end) // 2 * 2, 0
        for at in range(least, end // 2 * 2):
            value = (value << 1) + gear[data[start + at]] & 0xFFFFFFFFFFFFFFFF
            if not value & MASKS[bits + 2 if at < border else bits - 2]:
                length = at
                break
        lengths.append(length)
        start += length
    return lengths

def vectors(path):
    """§12: computes or opens every vector that SPEC.md prints. Only this needs kyber-py."""
    from kyber_py.ml_kem import ML_KEM_768
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as aead_seal
    from nacl.bindings import crypto_scalarmult as multiply, crypto_scalarmult_base as multiply_base
    spec = Path(path).read_text(encoding="utf-8")
    for row in re.findall(r"^\| \d+ \| `[0-9a-f]{16}` \|.*$", spec, re.M):
        MASKS.update({int(bits): int(mask, 16) for bits, mask in re.findall(r"(\d+) \| `([0-9a-f]{16})`", row)})
    sections = {found[1]: found[2] for found in re.finditer(r"^### (12\.\d) [^\n]*\n(.*?)(?=^### |\Z)", spec, re.M | re.S)}
    blocks = {at: re.findall(r"^```\n(.*?)^```$", text, re.M | re.S) for at, text in sections.items()}
    values = {at: dict(re.findall(r"^\| ([^|]+?) \| `([^`]+)` \|$", text, re.M)) for at, text in sections.items()}
    count, used = 0, set()
    def same(found, expected, what):
        nonlocal count
        need(found == expected, f"vector {what}: {found!r} is not {expected!r}")
        count += 1
    def block(at, number):
        used.add((at, number))
        return bytes.fromhex("".join(blocks[at][number].split()))
    vault, name, master = b"\2" * 16, b"\3" * 16, b"\1" * 32
    writer, object_key, later = derive("vault 2026 writer", master), b"\4" * 32, b"\6" * 32
    keys = Keys(vault, master, writer)

    table = values["12.1"]
    same(writer.hex(), table.pop("W"), "W")
    same(keyed(keys.chunk_id, b"", 16).hex(), table.pop("chunk id of no bytes"), "chunk id of no bytes")
    same(keyed(keys.chunk_id, b"vault", 16).hex(), table.pop("chunk id of `vault`"), "chunk id")
    same(keyed(keys.local, b"test").hex(), table.pop("local key for the purpose `test`"), "local key")
    need(not table, f"unknown vectors: {table}")
    first = re.search(r"begins with chunks of (\d+) and (\d+) bytes", sections["12.1"])
    numbers = struct.pack("<100000I", *range(100000))
    same(cut(numbers, keys.gear, 16384, 65536, 262144)[:2], [int(length) for length in first.groups()], "first cuts")
    gear = struct.unpack("<256Q", blake3(b"", derive_key_context="vault test gear").digest(2048))
    lengths = {(16384, 65536, 262144): 1 << 20, (256, 512, 2048): 10001, (1 << 20, 1 << 21, 1 << 22): 24 << 20}
    rows = re.findall(r"^\| ([^|]+) \| first [^|]+ bytes \| ([\d, ]+) \|$", sections["12.1"], re.M)
    same(len(rows), len(lengths), "number of cut vectors")
    for (sizes, length), (shown, cuts) in zip(lengths.items(), rows):
        same([1 << int(size[1:].translate(POWERS)) if "2" == size[0] and size[1:2] in "⁰¹²³⁴⁵⁶⁷⁸⁹" and size[1:] else int(size)
              for size in shown.split(", ")], list(sizes), "sizes")
        data = blake3(b"", derive_key_context="vault test data").digest(length)
        same(cut(data, gear, *sizes), [int(length) for length in cuts.split(", ")], f"cuts for {shown}")

    same(vault_file(blocks["12.2"][0].encode()), vault, "VAULT")
    used.add(("12.2", 0))
    ring = {"master": master, "writer": writer, "sizes": [16384, 65536, 262144], "made": 1700000000, "delivery": 1}
    for number, (secret, purpose) in enumerate([(b"correct horse", 1), (b"0123456789abcdef", 2)]):
        slot = block("12.3", number)
        same((slot[24:40], slot[40:56], slot[56:88]), (vault, name, b"\4" * 32), "ids of a slot")
        same(open_slot(slot, secret), ring, "keyring")
        same(open_slot(slot, secret + b"!"), None, "wrong secret")
        same(slot_info(slot, master), (purpose, 1800000000, "laptop"), "info")
    recovery = {"16 × 00": bytes(16), "16 × ff": b"\xff" * 16, "`0123456789abcdef` as text": b"0123456789abcdef"}
    for what, text in re.findall(r"^\| ([^|]+?) \| `([0-9A-Z-]+)` \|$", sections["12.4"], re.M):
        same(recovery_key(text), recovery.pop(what), f"recovery key {what}")
    need(not recovery, "recovery keys are missing")

    pack, record = Object(keys, 1, name, block("12.5", 0)), Object(keys, 3, name, block("12.5", 5))
    for object in pack, record:
        same(object.key, object_key, "header")
        same(keyed(keys.nonce, b"\5" * 32 + object.wrap_aad + object_key, 24), object.data[48:72], "wrap nonce")
    segment, body = block("12.5", 1), b"the body of a segment"
    length = struct.pack("<I", len(body) + 16)
    same(pack.section(1, 9, segment[:24], segment[24:44]), length, "head of a segment")
    same(pack.section(2, 9, segment[:24], segment[44:]), body, "body of a segment")
    content = length + b"\7" * 16 + b"\x08" * 16
    same(keyed(keys.nonce, later + pack.aad(2, 9) + content, 24), segment[:24], "nonce of a segment")
    for number, object, tag, plain in (2, pack, 3, b"footer"), (3, pack, 4, b"locator"), (6, record, 5, b"record"):
        sealed = block("12.5", number)
        same(object.section(tag, 0, sealed[:24], sealed[24:]), plain, SECTIONS[tag])
        same(keyed(keys.nonce, later + object.aad(tag, 0) + plain, 24), sealed[:24], "nonce")
    same(keyed(derive("vault 2026 padding", object_key), b"", 32), block("12.5", 4), "padding")
    index, hint = Object(keys, 4, name, b""), b"\7" * 6 + b"\4" * 6
    for number, tag, plain in (7, 6, hint), (8, 7, b"packs"), (9, 3, b"fence"), (10, 4, b"locator"):
        sealed = block("12.5", number)
        same(index.section(tag, 0, sealed[:24], sealed[24:]), plain, f"{SECTIONS[tag]} of an index object")
        same(keyed(keys.nonce, b"\6" * 32 + index.aad(tag, 0) + plain, 24), sealed[:24], "nonce")

    one, two, three = (bytes([byte]) * 16 for byte in (1, 2, 3))
    same(footer(block("12.6", 0)), [(120, 700, [(one, 100), (two, 200)]), (820, 99, [(three, 1)])], "footer in clear")
    packs, fence = Bytes(block("12.6", 1)), Bytes(block("12.6", 2))
    same([(packs.take(16), packs.varint()) for _ in range(2)], [(b"\4" * 16, 140000), (b"\5" * 16, 131073)], "list of packs")
    same([fence.varint() for _ in range(4)], [3, 1, 0, 300], "fence table")
    same((packs.rest(), fence.rest()), (b"", b"\6" * 16), "what an index object replaces")
    entry = {"n": b"\xff name", "p": 0o4755, "u": 1000, "g": 1001, "U": b"me", "G": b"us", "m": [-1, 999999999], "b": [5, 6],
             "s": 1 << 40, "c": [40, 0, b"\7" * 16], "h": {"i": b"\x28\1"},
             "x": [[b"user.a", b"\0\xff"], [b"user.b", b""]], "f": 4, "e": True}
    same(unpack(block("12.6", 3)), entry, "entry")
    same(msgpack.packb(entry), block("12.6", 3), "bytes of an entry")
    told = {"v": 1, "c": one, "n": 2, "p": b"\3" * 32, "s": [[b"\4" * 16, 5]], "t": [1800000000, 6], "a": b"\x08" * 16, "k": 4,
            "b": [{"m": True, "n": b"\7" * 16}]}
    plain = block("12.6", 4)
    same(message(plain.ljust(1024, b"\0")), told, "record")
    same(msgpack.packb({**told, "b": msgpack.packb(told["b"])}), plain[4:], "bytes of a record")
    body = unpack(block("12.6", 5))
    left = {name: (record["n"], record["t"], record["depth"]) for name, record in past(body["d"][0])}
    same(left, {b"\t" * 16: (3, [1800000000, 6], 10), b"\n" * 16: (7, [1799999999, 0], 8)}, "past records")
    same((body["d"][0]["c"], body["d"][0]["z"]), (one, [[7, [[two, 5, b"\3" * 32]]]]), "whose they are, and what they close")

    table = values["12.7"]
    seed = blake3(master, derive_key_context="vault 2026 reader ml-kem-768").digest(64)
    secret, (encapsulation, decapsulation) = derive("vault 2026 reader x25519", master), ML_KEM_768._keygen_internal(seed[:32], seed[32:])
    public, ephemeral = multiply_base(secret), multiply_base(b"\7" * 32)
    shared, (told, ciphertext) = multiply(secret, ephemeral), ML_KEM_768._encaps_internal(encapsulation, b"\x08" * 32)
    same(multiply(b"\7" * 32, public), shared, "both ways of X25519")
    same(ML_KEM_768.decaps(decapsulation, ciphertext), told, "decapsulation")
    parts = shared, told, writer, ephemeral, ciphertext, public, encapsulation
    wrap_key, fixed = derive("vault 2026 wrap 2", b"".join(parts)), b"vaultobj" + struct.pack("<HBBHH", 1, 1, 2, 1192, 0)
    pack = Object(keys, 1, name, fixed)
    nonce = keyed(keys.nonce, b"\5" * 32 + pack.wrap_aad + object_key, 24)
    wrapped = ephemeral + ciphertext + nonce + aead_seal(object_key, pack.wrap_aad, nonce, wrap_key)
    bound = fixed + vault + name + wrapped
    header = fixed + keyed(derive("vault 2026 object commitment", object_key), bound) + wrapped
    same(len(header), 1240, "length of a header of wrap 2")
    for what, value in {"PX": public, "hash of PM": blake3(encapsulation).digest(), "E": ephemeral, "x": shared, "m": told,
                        "hash of C": blake3(ciphertext).digest(), "wrap key": wrap_key,
                        "hash of the header": blake3(header).digest()}.items():
        same(value.hex(), table.pop(what), what)
    need(not table, f"unknown vectors: {table}")
    left = {(at, number) for at, found in blocks.items() for number in range(len(found))} - used
    need(not left, f"vectors that nobody looked at: {sorted(left)}")
    cases(same)
    print(count, "vectors")

def cases(same):
    """§8.3: what is put in the place of what."""
    def record(client, number, name, seen, kind, body):
        return bytes([name]), {"c": bytes([client]), "n": number, "s": [[bytes([of]), upto] for of, upto in seen], "t": [name, 0],
                               "k": kind, "b": body}
    def snapshot(*replaces):
        return {"time": [1, 0], "source": "s", "host": "h", "replaces": [bytes([name]) for name in replaces]}
    def listed(*records):
        return [name[0] for _, _, name, _ in snapshots(dict(records))]
    base, late = record(1, 1, 1, [], 2, snapshot()), record(1, 2, 2, [], 2, snapshot(1))
    retired = {seen: record(2, 1, 3, [(1, seen)] if seen else [], 6, [b"\1"]) for seen in range(3)}
    same(listed(base, late), [2], "a change")
    same([listed(base, late, retired[seen]) for seen in range(3)], [[1], [1], [2]], "a change by a client that was retired")
    again = record(2, 2, 4, [], 6, [b"\1"])
    same([listed(base, late, record(2, 1, 3, [(1, seen)], 3, []), again) for seen in (1, 2)], [[1], [2]], "what was seen before")
    same(listed(base, late, retired[1], record(3, 1, 5, [(1, 2)], 2, snapshot(2))), [5], "what somebody has looked at")
    same(listed(base, late, retired[1], record(3, 1, 5, [(1, 2)], 3, [b"\2"])), [], "what was forgotten")
    others = [record(2, number, number, [], 3, []) for number in (6, 7)] + [record(2, 8, 8, [], 2, snapshot())]
    same(listed(*others, record(1, 1, 9, [], 2, snapshot(8))), [9], "what comes behind what it names")

def main(store, command, *args):
    if command == "vectors":
        return vectors(store)
    vault = Vault(store, os.environ["VAULT_PASSWORD"])
    if command == "list":
        for date, _, name, body in vault.snapshots:
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(date[0]))
            print(name.hex(), when, body["source"], body["files"], body["verdict"], sep="\t")
    elif command in ("extract", "digest", "entries"):
        snapshot, path, *out = *args, *[""][:2 - len(args)]
        found = [body for *_, name, body in vault.snapshots if name.hex().startswith(snapshot) or snapshot == "latest"]
        need(len(found) == 1 or snapshot == "latest" and found, f"{len(found)} snapshots are meant by {snapshot}")
        entry = vault.find(found[-1], path)
        if command == "entries":
            for at, inner in vault.entries(entry):
                print(json.dumps({**{key: value for key, value in inner.items() if key not in "nch"}, "path": at},
                                 default=bytes.hex))
        else:
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
        main(*sys.argv[1:]) if sys.argv[2:3] in ([command] for command in COMMANDS) else sys.exit(__doc__)
    except (Damaged, OSError) as error:
        sys.exit(f"error: {error}")
