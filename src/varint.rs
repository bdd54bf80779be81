//! Unsigned LEB128 numbers in their shortest form, and a reader of bytes that never panics (SPEC §2).

/// Reason why bytes could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the bytes end too early")]
    Short,
    /// A number is not in its shortest form, or exceeds 64 bits.
    #[error("a number is malformed")]
    Number,
    /// A number exceeds its limit.
    #[error("{0} is over its limit")]
    Limit(&'static str),
    /// A version or number that this program does not know.
    #[error("it was written by a newer vault (unknown {0})")]
    Unknown(&'static str),
}

/// Appends a number.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Number of bytes that [`put`] appends for this number.
pub const fn len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Reads fields from the front of a byte string.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes that have not been read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    /// The next number.
    pub fn number(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(DecodeError::Number);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return if byte == 0 && shift > 0 { Err(DecodeError::Number) } else { Ok(value) };
            }
        }
        Err(DecodeError::Number)
    }

    /// The next number, which may be at most `max`; `what` names it in the error.
    pub fn bounded(&mut self, what: &'static str, max: usize) -> Result<usize, DecodeError> {
        let value = self.number()?;
        match usize::try_from(value) {
            Ok(value) if value <= max => Ok(value),
            _ => Err(DecodeError::Limit(what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_in_one_form_only() {
        for value in (0..64).flat_map(|shift| [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift]) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(bytes.len(), len(value));
            assert_eq!(Reader::new(&bytes).number(), Ok(value));
            assert_eq!(Reader::new(&bytes[..bytes.len() - 1]).number(), Err(DecodeError::Short));
        }
        assert_eq!(Reader::new(&[0x80, 0]).number(), Err(DecodeError::Number));
        assert_eq!(Reader::new(&[0xff; 11]).number(), Err(DecodeError::Number));
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).number(),
            Err(DecodeError::Number)
        );
        assert_eq!(Reader::new(&[9]).bounded("it", 8), Err(DecodeError::Limit("it")));
    }
}
