//! Rows as the store keeps them: postcard, and LZ4 where that pays. An order's row repeats itself, in the data of its
//! events above all; a third of the bytes is a third of the pages that the store copies, writes and reads again.

use lz4_flex::block;
use serde::{Serialize, de::DeserializeOwned};

use crate::store::StoreError;

/// Rows up to here are encoded in one piece.
const PIECE_BYTES: usize = 64 * 1024;
/// Shorter rows are kept as they are.
const PACKED_BYTES_MIN: usize = 256;
/// No row is longer; what claims to be is torn.
const ROW_BYTES_MAX: usize = 64 * 1024 * 1024;
const PLAIN: u8 = 0;
/// The length follows, in four bytes, the least first.
const PACKED: u8 = 1;

/// Encodes rows, in memory of its own.
#[derive(Default)]
pub(crate) struct Packer {
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl Packer {
    pub(crate) fn encode<T: Serialize>(&mut self, row: &T) -> Result<Vec<u8>, StoreError> {
        // Postcard grows a vector byte by byte, but fills a slice at a stroke.
        self.plain.resize(PIECE_BYTES, 0);
        match postcard::to_slice(row, &mut self.plain) {
            Ok(plain) => Ok(pack(plain, &mut self.packed)),
            Err(postcard::Error::SerializeBufferFull) => {
                Ok(pack(&postcard::to_stdvec(row)?, &mut self.packed))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A row as it is stored; `spare` is overwritten.
fn pack(plain: &[u8], spare: &mut Vec<u8>) -> Vec<u8> {
    if plain.len() >= PACKED_BYTES_MIN
        && let Ok(length) = u32::try_from(plain.len())
    {
        spare.resize(block::get_maximum_output_size(plain.len()).max(spare.len()), 0);
        if let Ok(packed) = block::compress_into(plain, spare)
            && packed < plain.len()
        {
            return [&[PACKED][..], &length.to_le_bytes(), &spare[..packed]].concat();
        }
    }
    [&[PLAIN][..], plain].concat()
}

/// A stored row, with the newest event that it is folded from.
pub(crate) fn decode<R: DeserializeOwned>(stored: &[u8]) -> Result<(u64, R), StoreError> {
    match stored.split_first() {
        Some((&PLAIN, plain)) => Ok(postcard::from_bytes(plain)?),
        Some((&PACKED, packed)) => Ok(postcard::from_bytes(&unpack(packed)?)?),
        Some(_) | None => Err(StoreError::Packed),
    }
}

/// Bytes that a stored row has once it is unpacked.
pub(crate) fn plain_bytes(stored: &[u8]) -> usize {
    let packed = stored.strip_prefix(&[PACKED]).and_then(<[u8]>::first_chunk);
    packed.map_or(stored.len(), |length| usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX))
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, StoreError> {
    let (length, packed) = packed.split_first_chunk().ok_or(StoreError::Packed)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > ROW_BYTES_MAX {
        return Err(StoreError::Packed);
    }
    block::decompress(packed, length).map_err(|_| StoreError::Packed)
}

/// Replaces bytes of a stored row by as many others, for tests of what finds such things.
#[doc(hidden)]
pub fn falsify(stored: &[u8], from: &[u8], to: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut plain = match stored.split_first() {
        Some((&PACKED, packed)) => unpack(packed)?,
        Some((_, plain)) => plain.to_vec(),
        None => return Err(StoreError::Packed),
    };
    while let Some(place) = plain.windows(from.len()).position(|window| window == from) {
        plain[place..place + to.len()].copy_from_slice(to);
    }
    Ok(pack(&plain, &mut Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_any_size_read_back_and_those_that_repeat_themselves_are_small() {
        let mut packer = Packer::default();
        for length in [0, 1, 255, 256, 3_000, PIECE_BYTES, 3 * PIECE_BYTES] {
            let row = (7_u64, "a delivery ".repeat(length / 11));
            let stored = packer.encode(&row).unwrap();
            assert_eq!(decode::<String>(&stored).unwrap(), row, "{length}");
            assert!(length < 3_000 || stored.len() < length / 3, "{length}: {}", stored.len());
        }
    }

    #[test]
    fn a_torn_row_is_an_error_and_never_more_memory_than_a_row_has() {
        let stored = Packer::default().encode(&(7_u64, "a delivery ".repeat(100))).unwrap();
        for end in 0..stored.len() {
            assert!(decode::<String>(&stored[..end]).is_err(), "{end}");
        }
        let huge = [&[PACKED][..], &u32::MAX.to_le_bytes(), &stored[5..]].concat();
        assert!(matches!(decode::<String>(&huge), Err(StoreError::Packed)));
        assert!(decode::<String>(&[9, 1, 2]).is_err());
    }
}
