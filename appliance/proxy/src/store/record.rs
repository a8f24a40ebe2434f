//! What is written of a stored answer: postcard between a magic with a version and a SHA-256 of what is before it.

use http::{HeaderMap, HeaderName, HeaderValue};
use rackbar_model::Digest;
use rackbar_trust::sha256;
use serde::{Deserialize, Serialize};

use crate::rules::vary::Selecting;

const MAGIC: &[u8; 8] = b"RBCACHE1";

/// Fields that are worked with. HTTP/1 gives a hundred at most, HTTP/2 some five hundred; a file that came from elsewhere may have
/// more than a map of them can hold.
const FIELDS_MOST: usize = 1024;

/// A stored answer, but for its content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// What it answers: a URL, or `mirror:NAME/PATH`.
    pub key: String,
    /// Request fields it depends on.
    pub selecting: Selecting,
    /// Status.
    pub status: u16,
    /// Headers in their order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// When it was asked for, in seconds since 1970.
    pub request_time: u64,
    /// When the answer's head came.
    pub response_time: u64,
    /// SHA-256 of its content.
    pub digest: Digest,
    /// Bytes of its content.
    pub size: u64,
}

impl Record {
    /// Name of its file: one for each key and each set of selecting values.
    pub(super) fn file_name(&self) -> String {
        let name = postcard::to_stdvec(&(&self.key, &self.selecting)).unwrap_or_default();
        Digest(sha256(&name)).to_string()
    }

    /// Its bytes on disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        // Plain data without maps or unsized parts: postcard has no way to fail on it.
        out.extend(postcard::to_stdvec(self).unwrap_or_default());
        let digest = sha256(&out);
        out.extend(digest);
        out
    }

    /// Reads it back; `None` for anything that is not whole.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        if sha256(body) != digest {
            return None;
        }
        postcard::from_bytes(body.strip_prefix(MAGIC.as_slice())?).ok()
    }

    /// The headers as they are worked with.
    pub fn header_map(&self) -> HeaderMap {
        let parsed = |(name, value): &(String, Vec<u8>)| {
            Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_bytes(value).ok()?))
        };
        let fields = self.headers.iter().take(FIELDS_MOST);
        let mut out = HeaderMap::with_capacity(fields.len());
        for (name, value) in fields.filter_map(parsed) {
            out.append(name, value);
        }
        out
    }
}

/// Headers as they are written.
pub(crate) fn pairs(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| (name.as_str().to_owned(), value.as_bytes().to_vec());
    headers.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> Record {
        Record {
            key: "http://a/b".into(),
            selecting: vec![("accept".into(), Some("x".into())), ("te".into(), None)],
            status: 200,
            headers: vec![
                ("etag".into(), b"\"a\"".to_vec()),
                ("via".into(), b"x".to_vec()),
                ("via".into(), b"y".to_vec()),
            ],
            request_time: 5,
            response_time: 6,
            digest: Digest([7; 32]),
            size: 8,
        }
    }

    #[test]
    fn it_is_read_back_and_no_damaged_bit_passes() {
        let bytes = record().to_bytes();
        assert_eq!(Record::from_bytes(&bytes), Some(record()));
        assert_eq!(record().header_map().get_all("via").iter().count(), 2);
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::from_bytes(&wrong), None);
        }
        for end in 0..bytes.len() {
            assert_eq!(Record::from_bytes(&bytes[..end]), None);
        }
    }

    #[test]
    fn more_fields_than_any_answer_has_make_nothing_panic() {
        let many = (0..60_000).map(|number| (format!("x-{number}"), Vec::new())).collect();
        let record = Record {
            headers: many,
            ..record()
        };
        assert_eq!(record.header_map().len(), FIELDS_MOST);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::from_bytes(&bytes);
            let mut signed = [MAGIC.as_slice(), &bytes].concat();
            let digest = sha256(&signed);
            signed.extend(digest);
            let _ = Record::from_bytes(&signed).map(|record| record.header_map());
        }
    }
}
