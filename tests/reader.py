#!/usr/bin/env python3
"""Reads a vault without the program vault: written from SPEC.md alone, as proof that SPEC.md is enough.

    reader.py VAULT list                        the snapshots, oldest first
    reader.py VAULT extract SNAPSHOT PATH OUT   one file or one folder of a snapshot ('' for all of it), content only
    reader.py VAULT verify                      every object and every chunk

SNAPSHOT is an id, the start of one, or 'latest'. The password (or recovery key) comes from VAULT_PASSWORD.
Needs: pip install blake3 zstandard argon2-cffi PyNaCl msgpack
"""
import hmac
import os
import re
import struct
import sys
from datetime import datetime, timezone

import msgpack
import zstandard
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as aead_open
from nacl.exceptions import CryptoError

PACK, META, RECORD = 1, 2, 3
FOLDERS = {PACK: "packs", META: "meta", RECORD: "log"}
SECTIONS = {1: "segment head", 2: "segment body", 3: "footer", 4: "locator", 5: "record"}


class Damaged(Exception):
    pass


class Newer(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Damaged(what)


def known(condition, what):
    if not condition:
        raise Newer(f"written by a newer vault (unknown {what})")


def derive(context, material, length=32):
    return blake3(material, derive_key_context=context).digest(length=length)


def keyed(key, data, length=32):
    return blake3(data, key=key).digest(length=length)


def digest(data):
    return blake3(data).digest()


def unseal(key, nonce, aad, sealed, what):
    need(len(sealed) >= 16, f"{what} is cut short")
    try:
        return aead_open(bytes(sealed), bytes(aad), bytes(nonce), key)
    except CryptoError:
        raise Damaged(f"{what} does not open") from None


# §2 numbers

class Bytes:
    """Takes fields off the front of a byte string."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        need(self.at + count <= len(self.data), "the bytes end too early")
        self.at += count
        return self.data[self.at - count:self.at]

    def byte(self):
        return self.take(1)[0]

    def varint(self, limit=(1 << 64) - 1):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                need((byte != 0 or shift == 0) and value <= limit, "a number is malformed or over its limit")
                return value
        raise Damaged("a number is malformed")

    def rest(self):
        return self.take(len(self.data) - self.at)

    def ended(self):
        return self.at == len(self.data)


# §4.1, §4.2, §4.5, §4.6: from the password to the master key

def vault_file(path):
    """The vault id; None if the file is missing or damaged."""
    try:
        with open(path, "rb") as file:
            text = file.read(4097)
    except FileNotFoundError:
        return None
    head, found, last = text.rpartition(b"blake3 ")
    if len(text) > 4096 or not text.startswith(b"vault archive, format ") or last != digest(head).hex().encode() + b"\n":
        return None
    lines = head.decode().split("\n")
    known(lines[0] == "vault archive, format 1", "format version")
    if len(lines) != 5 or not re.fullmatch("id [0-9a-f]{32}", lines[1]) or not re.fullmatch("features [0-9a-f]{16}", lines[2]):
        return None
    known(lines[2] == "features " + "0" * 16, "feature")
    return bytes.fromhex(lines[1][3:])


def recovery_key(text):
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    digits = re.sub(r"[\s_.\-\u2010-\u2015\u2212]", "", text).upper().translate(str.maketrans("OIL", "011"))
    if len(digits) != 30 or any(digit not in alphabet for digit in digits):
        return None
    value = 0
    for digit in digits:
        value = value << 5 | alphabet.index(digit)
    secret = (value >> 22).to_bytes(16, "big")
    check = int.from_bytes(derive("vault 2026 recovery key check", secret)[:3], "big") >> 2
    return secret if value & 0x3FFFFF == check else None


def parse_slot(slot):
    need(slot[:8] == b"vaultkey" and digest(slot[:-32]) == slot[-32:], "it is no key slot, or its checksum is wrong")
    version, method, lanes, memory, passes, flags = struct.unpack("<HBBIII", slot[8:24])
    known(version == 1, "version of a key slot")
    need(len(slot) == 592, "its length is wrong")
    known(flags == 0, "flags of a key slot")
    known(method in (1, 2), "way to stretch a secret")
    if method == 1:
        need(19456 <= memory <= 2097152 and 1 <= passes <= 16 and memory * passes <= 8 << 20 and 1 <= lanes <= 16,
             "the costs of its password are out of bounds")
    return {"bytes": slot, "method": method, "costs": (passes, memory, lanes), "vault": slot[24:40], "id": slot[40:56]}


def open_slot(slot, secret):
    """The keyring, or None if the secret is not that of the slot."""
    data, salt = slot["bytes"], slot["bytes"][56:88]
    if slot["method"] == 1:
        stretched = hash_secret_raw(secret, salt, *slot["costs"], 32, Type.ID, 19)
    else:
        stretched = derive("vault 2026 slot secret", salt + secret)
    if not hmac.compare_digest(keyed(derive("vault 2026 slot commitment", stretched), data[:88]), data[88:120]):
        return None
    ring = unseal(derive("vault 2026 slot kek", stretched), data[120:144], data[:120], data[144:416], "the keyring")
    version, master, *chunks, _created, delivery, features = struct.unpack("<B32sIIIQBQ", ring[:62])
    known(version == 1 and delivery in (0, 1) and features == 0, "keyring version, delivery or feature")
    need(not any(ring[62:]), "the padding of the keyring is not zero")
    return master


def listed(folder, fans_out):
    """Names of objects and their paths; what is foreign is passed over."""
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        if not fans_out and re.fullmatch("[0-9a-f]{32}", name) and os.path.isfile(path):
            yield bytes.fromhex(name), path
        elif fans_out and re.fullmatch("[0-9a-f]{2}", name) and os.path.isdir(path):
            yield from ((inner, at) for inner, at in listed(path, False) if inner.hex().startswith(name))


def unlock(store, text):
    vault = vault_file(os.path.join(store, "VAULT"))
    slots, trouble = {}, []
    for name, path in listed(os.path.join(store, "keys"), False):
        try:
            with open(path, "rb") as file:
                slot = parse_slot(file.read(4096))
            if vault in (None, slot["vault"]):
                slots.setdefault(slot["id"], slot)
        except (Damaged, Newer) as error:
            trouble.append(f"keys/{name.hex()}: {error}")
    tries = [(1, text.encode("utf-8", "surrogateescape"))]
    secret = recovery_key(text)
    if secret:
        tries.insert(0, (2, secret))
    for method, secret in tries:
        for slot in [slot for slot in slots.values() if slot["method"] == method][:16]:
            try:
                master = open_slot(slot, secret)
            except (Damaged, Newer) as error:
                trouble.append(str(error))
                continue
            if master:
                return slot["vault"], master
    raise Damaged("; ".join(trouble) or "the password is wrong, or there is no vault")


# §4.3 sealed objects

class Object:
    def __init__(self, vault, wrap_key, kind, name, path):
        self.vault, self.kind, self.name = vault, kind, name
        with open(path, "rb") as file:
            self.data = file.read()
        header = self.data[:120]
        need(len(self.data) >= 120 + 40 + 32 and header[:8] == b"vaultobj", "it is no object of a vault")
        version, found, wrap, length, flags = struct.unpack("<HBBHH", header[8:16])
        known(version == 1 and flags == 0 and wrap == 1, "version, flags or way to wrap a key")
        need(length == 72 and found == kind, "its header is malformed")
        aad = b"vaultobj wrap" + vault + name + header[:16]
        self.key = unseal(wrap_key, header[48:72], aad, header[72:120], "the header")
        commitment_key = derive("vault 2026 object commitment", self.key)
        commitment = keyed(commitment_key, header[:16] + vault + name + header[48:120])
        need(hmac.compare_digest(commitment, header[16:48]), "the header does not match its key")
        need(digest(self.data[:-32]) == self.data[-32:], "the trailer does not fit")

    def section(self, tag, number, nonce, sealed):
        aad = self.vault + bytes([self.kind]) + self.name + bytes([tag]) + struct.pack("<I", number)
        key = derive("vault 2026 section " + SECTIONS[tag], self.key)
        return unseal(key, nonce, aad, sealed, f"{SECTIONS[tag]} {number}")

    def sealed(self, tag, start, end):
        return self.section(tag, 0, self.data[start:start + 24], self.data[start + 24:end])

    def footer(self):
        """§5.3, §5.4: for each segment its offset, its length, and its chunks (id, length)."""
        end = len(self.data) - 96
        offset, length, segments_end, count = struct.unpack("<QIQI", self.sealed(4, end, end + 64))
        need(offset + length == end and 40 <= length <= 192 << 20 and segments_end <= offset, "the locator is out of bounds")
        plain = Bytes(self.sealed(3, offset, end))
        known(plain.byte() == 1, "version of a footer")
        segments, at = [], 120
        for _ in range(plain.varint(1 << 20)):
            sealed = plain.varint()
            known(plain.byte() in (0, 1), "method of a segment")
            raw = plain.varint(16 << 20)
            lengths = read_lengths(plain, raw)
            segments.append((at, sealed, [(plain.take(16), length) for length in lengths]))
            at += sealed
        need(plain.ended() and len(segments) == count and at == segments_end, "footer and locator contradict each other")
        return segments

    def segment(self, number, offset, length):
        """§5.2: the chunks of a segment."""
        data = self.data[offset:offset + length]
        nonce, (stated,) = data[:24], struct.unpack("<I", self.section(1, number, data[:24], data[24:44]))
        need(stated == len(data) - 44, "a segment is not of the length that its head says")
        plain = Bytes(self.section(2, number, nonce, data[44:]))
        method, raw_length = plain.byte(), plain.varint(16 << 20)
        known(method in (0, 1), "method of a segment")
        lengths, raw = read_lengths(plain, raw_length), plain.rest()
        if method == 1:
            need(zstandard.frame_content_size(raw) == raw_length, "the frame states another size")
            unzip = zstandard.ZstdDecompressor().decompressobj()
            raw = unzip.decompress(raw)
            need(unzip.eof and not unzip.unused_data, "the frame is not exactly the payload")
        need(len(raw) == raw_length, "the payload has another length")
        chunks = Bytes(raw)
        return [chunks.take(length) for length in lengths]


def read_lengths(plain, raw_length):
    lengths = [plain.varint(4 << 20) for _ in range(plain.varint(1 << 18))]
    need(lengths and all(lengths) and sum(lengths) == raw_length, "the lengths of the chunks do not add up")
    return lengths


# §8, §9.1: the whole vault

class Vault:
    def __init__(self, store, password):
        self.store = store
        self.id, master = unlock(store, password)
        self.wrap_key = derive("vault 2026 object wrap", master)
        self.id_key = derive("vault 2026 chunk id", master)
        self.bad, self.where, self.packs, self.opened = [], {}, {}, {}
        records = {name: record for name, path in listed(os.path.join(store, "log"), False)
                   for record in self.guard(f"log/{name.hex()}", lambda: self.record(name, path))}
        forgotten = {name for record in records.values() if record["k"] == 3 for name in record["b"]}
        self.snapshots = sorted(((name, record) for name, record in records.items()
                                 if record["k"] == 2 and name not in forgotten),
                                key=lambda item: (item[1]["b"]["time"], item[1]["c"], item[1]["n"]))
        for kind in (PACK, META):
            for name, path in listed(os.path.join(store, FOLDERS[kind]), True):
                for pack in self.guard(f"{FOLDERS[kind]}/{name.hex()}", lambda: Object(self.id, self.wrap_key, kind, name, path).footer()):
                    self.packs[name] = kind, path, pack
                    for number, (_, _, chunks) in enumerate(pack):
                        for index, (id, _) in enumerate(chunks):
                            self.where.setdefault(id, []).append((name, number, index))

    def guard(self, what, action):
        """One damaged object never keeps the others from being used."""
        try:
            return [action()]
        except (Damaged, Newer, OSError, ValueError, KeyError) as error:
            self.bad.append(f"{what}: {error}")
            return []

    def record(self, name, path):
        object = Object(self.id, self.wrap_key, RECORD, name, path)
        plain = object.sealed(5, 120, len(object.data) - 32)
        (length,) = struct.unpack("<I", plain[:4])
        need(4 + length <= len(plain) and len(plain) % 1024 == 0 and not any(plain[4 + length:]), "the padding is wrong")
        record = msgpack.unpackb(plain[4:4 + length])
        known(record["v"] == 1, "version of a record")
        need(record["n"] > 0, "its number is zero")
        if 1 <= record["k"] <= 7:
            record["b"] = msgpack.unpackb(record["b"])
        return record

    def segment(self, name, number):
        if (name, number) not in self.opened:
            kind, path, pack = self.packs[name]
            if len(self.opened) >= 64:
                self.opened.pop(next(iter(self.opened)))
            offset, length, expected = pack[number]
            chunks = Object(self.id, self.wrap_key, kind, name, path).segment(number, offset, length)
            found = [(keyed(self.id_key, chunk, 16), len(chunk)) for chunk in chunks]
            need(found == expected, f"segment {number}: a chunk is not what its id says")
            self.opened[name, number] = chunks
        return self.opened[name, number]

    def chunk(self, id):
        trouble = "it is in no pack"
        for name, number, index in self.where.get(id, []):
            try:
                return self.segment(name, number)[index]
            except (Damaged, Newer, OSError) as error:
                trouble = f"{name.hex()}: {error}"
        raise Damaged(f"chunk {id.hex()}: {trouble}")

    def stream(self, stream):
        """§6: the bytes of a stream, chunk by chunk."""
        length, depth, ids = stream
        need(depth <= 4 and len(ids) <= 1024 and (length == 0) == (not ids), "a stream is out of bounds")
        for _ in range(depth):
            ids = b"".join(self.chunk(id) for id in split_ids(ids))
        for id in split_ids(ids):
            chunk = self.chunk(id)
            length -= len(chunk)
            need(length >= 0, "a stream is longer than it says")
            yield chunk
        need(length == 0, "a stream is shorter than it says")

    def listing(self, stream):
        """§7.1: the entries of a folder."""
        data = b"".join(self.stream(stream))
        known(data[:1] in (b"", b"\x01"), "version of a listing")
        unpacker = msgpack.Unpacker(max_buffer_size=0)
        unpacker.feed(data[1:])
        before = b""
        for entry in unpacker:
            name = entry["n"]
            need(name > before and name not in (b".", b"..") and not set(name) & set(b"/\0") and len(name) <= 1024,
                 "a name is forbidden or out of order")
            known(0 <= entry.get("k", 0) <= 6, "kind of file")
            before = name
            yield entry
        need(unpacker.tell() == len(data[1:]), "a listing ends in the middle of an entry")

    def find(self, snapshot, path):
        entry = {"n": b"", "k": 1, "c": snapshot["tree"]}
        for part in [part for part in os.fsencode(path).split(b"/") if part]:
            found = [inner for inner in self.listing(entry["c"]) if inner["n"] == part] if entry.get("k", 0) == 1 else []
            need(found, f"there is no {path} in the snapshot")
            entry = found[0]
        return entry

    def extract(self, entry, out):
        """Writes a file, or a folder and all below it; returns the number of files."""
        kind = entry.get("k", 0)
        if kind == 1:
            os.makedirs(out, exist_ok=True)
            return sum(self.extract(inner, os.path.join(os.fsencode(out), inner["n"])) for inner in self.listing(entry["c"]))
        if kind == 2:
            os.symlink(entry["t"], out)
        elif kind == 0:
            with open(out, "xb") as file:
                self.write(entry, file)
        return 1

    def write(self, entry, file):
        """§7.3: the content, laid out between the holes."""
        size, pairs = entry.get("s", 0), b""
        for form, holes in entry.get("h", {}).items():
            pairs = holes if form == "i" else b"".join(self.stream(holes))
        pairs, runs, at = Bytes(pairs), [], 0
        while not pairs.ended():
            distance, length = pairs.varint(), pairs.varint()
            runs.append((at, distance))
            at += distance + length
            need(length > 0 and at <= size, "the list of holes is malformed")
        runs.append((at, size - at))
        need(sum(length for _, length in runs) == entry["c"][0], "the content does not fit between the holes")
        data = b""
        chunks = self.stream(entry["c"])
        for at, length in runs:
            file.seek(at)
            while length:
                data = data or next(chunks)
                file.write(data[:length])
                length, data = length - len(data[:length]), data[length:]
        for _ in chunks:
            raise Damaged("the content is longer than the file")
        file.truncate(size)


def split_ids(ids):
    need(len(ids) % 16 == 0, "a list of ids has a wrong length")
    return (ids[at:at + 16] for at in range(0, len(ids), 16))


def main(store, command, *args):
    vault = Vault(store, os.environ["VAULT_PASSWORD"])
    if command == "list":
        for name, record in vault.snapshots:
            body = record["b"]
            time = datetime.fromtimestamp(body["time"][0], timezone.utc).isoformat()
            print(name.hex(), time, body["source"], body["files"], body["verdict"], sep="\t")
    elif command == "extract":
        snapshot, path, out = args
        found = [record for name, record in vault.snapshots if name.hex().startswith(snapshot)]
        found = vault.snapshots[-1][1:] if snapshot == "latest" else found
        need(len(found) == 1, f"{len(found)} snapshots are meant by {snapshot}")
        print(vault.extract(vault.find(found[0]["b"], path), out), "files")
    elif command == "verify":
        for name, (kind, _, pack) in vault.packs.items():
            for number in range(len(pack)):
                vault.guard(f"{FOLDERS[kind]}/{name.hex()}", lambda: vault.segment(name, number))
        print(len(vault.packs), "packs", len(vault.where), "chunks", len(vault.snapshots), "snapshots")
    else:
        sys.exit(__doc__)
    for bad in vault.bad:
        print("damaged:", bad, file=sys.stderr)
    sys.exit(4 if vault.bad else 0)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (Damaged, Newer, OSError) as error:
        sys.exit(f"error: {error}")
