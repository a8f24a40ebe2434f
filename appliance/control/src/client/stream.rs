//! Answers that are read while they come.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::ClientError;

/// An answer as it comes.
pub struct Pieces {
    pub(super) place: String,
    pub(super) body: Incoming,
}

impl Pieces {
    /// The next piece; `None` when the appliance ended it or the connection broke.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.try_next().await.ok().flatten()
    }

    /// The next piece; `None` at the end of what the appliance wanted to send.
    ///
    /// # Errors
    /// When the connection broke, or the appliance broke off.
    pub async fn try_next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| ClientError::Unreachable {
                at: self.place.clone(),
                reason: error.to_string(),
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// Events as they happen.
pub struct EventStream {
    pub(super) place: String,
    pub(super) body: Incoming,
    pub(super) pending: Vec<u8>,
}

impl EventStream {
    /// The next event's JSON; `None` when the appliance ended the stream.
    ///
    /// # Errors
    /// When the connection breaks: connect again with `after` set to the last number seen.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(end) = self.pending.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.pending.drain(..end + 2).collect();
                if let Some(data) = data_of(&String::from_utf8_lossy(&block)) {
                    return Ok(Some(data));
                }
                continue;
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(ClientError::Unreachable {
                        at: self.place.clone(),
                        reason: error.to_string(),
                    });
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.pending.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// The joined `data:` lines of one block (WHATWG HTML section 9.2.6); `None` for a comment.
fn data_of(block: &str) -> Option<String> {
    let lines: Vec<_> = block
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|d| d.strip_prefix(' ').unwrap_or(d))
        .collect();
    if lines.is_empty() { None } else { Some(lines.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_carry_no_data_and_lines_are_joined() {
        assert_eq!(data_of(":keep alive\n"), None);
        assert_eq!(
            data_of("id: 3\nevent: event\ndata: {\"a\":\ndata: 1}\n").as_deref(),
            Some("{\"a\":\n1}")
        );
    }
}
