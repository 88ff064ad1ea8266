//! Close frames: the code and reason that both sides exchange before the TCP stream ends.
//!
//! This file knows the *payload* of a close frame ([RFC 6455 §5.5.1]) and the codes that may be sent
//! ([§7.4]). `state.rs` tracks which side has sent its close frame.
//!
//! [RFC 6455 §5.5.1]: https://www.rfc-editor.org/rfc/rfc6455#section-5.5.1
//! [§7.4]: https://www.rfc-editor.org/rfc/rfc6455#section-7.4

use std::fmt;

use super::{MAX_CONTROL_PAYLOAD, ProtocolError};

/// A close code, and a reason that is meant for logs, not for users.
///
/// ```
/// use tidewire::{CloseCode, CloseFrame};
///
/// let frame = CloseFrame::new(CloseCode::GOING_AWAY, "deploying")?;
/// assert_eq!(frame.encode(), b"\x03\xe9deploying");
/// # Ok::<(), tidewire::frame::ProtocolError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CloseFrame {
    code: CloseCode,
    reason: String,
}

impl CloseFrame {
    /// Longest reason, in bytes of UTF-8: a control payload less the two bytes of the code.
    pub const MAX_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

    /// Pairs a code with a reason.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::ControlFrameTooLong`] if `reason` exceeds [`Self::MAX_REASON`] bytes.
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Result<Self, ProtocolError> {
        let reason = reason.into();
        if reason.len() > Self::MAX_REASON {
            return Err(ProtocolError::ControlFrameTooLong { len: reason.len() + 2 });
        }
        Ok(Self { code, reason })
    }

    /// Reads the payload of a received close frame; `None` when it is empty.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the payload breaks §5.5.1, §7.4 or §8.1.
    pub fn decode(payload: &[u8]) -> Result<Option<Self>, ProtocolError> {
        let Some((code, reason)) = payload.split_first_chunk::<2>() else {
            return match payload {
                [] => Ok(None),
                _ => Err(ProtocolError::ClosePayloadTruncated),
            };
        };
        let code = CloseCode::try_from(u16::from_be_bytes(*code))?;
        let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::InvalidUtf8)?;
        Self::new(code, reason).map(Some)
    }

    /// Writes the payload of this frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(2 + self.reason.len());
        payload.extend_from_slice(&self.code.0.to_be_bytes());
        payload.extend_from_slice(self.reason.as_bytes());
        payload
    }

    /// Pairs a code with as much of `reason` as fits. The reason is cut between characters.
    #[must_use]
    pub fn lossy(code: CloseCode, reason: &str) -> Self {
        let mut end = reason.len().min(Self::MAX_REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self { code, reason: reason.get(..end).unwrap_or_default().to_owned() }
    }

    /// The close code, for programs.
    #[must_use]
    pub fn code(&self) -> CloseCode {
        self.code
    }

    /// The reason for the close, for readers of the log.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// A close code that may appear on the wire.
///
/// 1005, 1006 and 1015 exist only for reporting (§7.4.1). No value of this type is one of them, so a
/// `CloseCode` can always be sent.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server shuts down, or the browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke a framing rule.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: this endpoint does not accept such data, such as binary messages in a text protocol.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1007: the payload does not fit its type, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: the peer broke a rule of this endpoint, and no other code fits.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: the message is too big to process.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// 1010: the client needs an extension that the server did not agree to.
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    /// 1011: the server cannot fulfil the request, for instance since a handler failed.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the server restarts; clients reconnect after a random delay.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: the server is overloaded; clients try again later, or elsewhere.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway got a bad response from the server behind it.
    pub const BAD_GATEWAY: Self = Self(1014);
}

impl TryFrom<u16> for CloseCode {
    type Error = ProtocolError;

    fn try_from(code: u16) -> Result<Self, ProtocolError> {
        match code {
            // 1012..=1014 came after the RFC, through the IANA registry of §11.7.
            1000..=1003 | 1007..=1014 | 3000..=4999 => Ok(Self(code)),
            _ => Err(ProtocolError::InvalidCloseCode(code)),
        }
    }
}

/// For a number literal such as `4000`, which is an `i32` by default.
impl TryFrom<i32> for CloseCode {
    type Error = ProtocolError;

    fn try_from(code: i32) -> Result<Self, ProtocolError> {
        let code = u16::try_from(code.max(0)).unwrap_or(u16::MAX);
        Self::try_from(code)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl PartialEq<u16> for CloseCode {
    fn eq(&self, code: &u16) -> bool {
        self.0 == *code
    }
}

/// The code, and the reason if there is one: `1001, deploying`.
impl fmt::Display for CloseFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, ", {}", self.reason) }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_compare_with_numbers_and_frames_show_code_and_reason() {
        assert_eq!(CloseCode::NORMAL, 1000);
        assert!(CloseCode::NORMAL < CloseCode::GOING_AWAY);
        let shown = |reason| CloseFrame::lossy(CloseCode::GOING_AWAY, reason).to_string();
        assert_eq!([shown(""), shown("deploying")], ["1001", "1001, deploying"]);
    }

    #[test]
    fn an_empty_payload_carries_no_code() {
        assert_eq!(CloseFrame::decode(b""), Ok(None));
    }

    #[test]
    fn malformed_payloads_are_refused_with_the_right_close_code() {
        let cases: [(&[u8], ProtocolError, CloseCode); 3] = [
            (b"\x03", ProtocolError::ClosePayloadTruncated, CloseCode::PROTOCOL_ERROR),
            (b"\x03\xed", ProtocolError::InvalidCloseCode(1005), CloseCode::PROTOCOL_ERROR),
            (b"\x03\xe8\xff", ProtocolError::InvalidUtf8, CloseCode::INVALID_PAYLOAD),
        ];
        for (payload, error, code) in cases {
            assert_eq!(CloseFrame::decode(payload), Err(error), "{payload:02x?}");
            assert_eq!(error.close_code(), code, "{error}");
        }
    }

    #[test]
    fn only_codes_of_section_7_4_travel() {
        let travel = |code: &u16| CloseCode::try_from(*code).is_ok();
        assert!([1000, 1003, 1007, 1014, 3000, 4999].iter().all(travel));
        assert!(![0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000].iter().any(travel));
    }

    #[test]
    fn the_longest_reason_round_trips_and_one_more_byte_is_refused() {
        let frame = CloseFrame::new(CloseCode::NORMAL, "x".repeat(CloseFrame::MAX_REASON)).unwrap();
        assert_eq!(CloseFrame::decode(&frame.encode()), Ok(Some(frame)));

        let error = CloseFrame::new(CloseCode::NORMAL, "x".repeat(CloseFrame::MAX_REASON + 1));
        assert_eq!(error, Err(ProtocolError::ControlFrameTooLong { len: 126 }));
    }

    #[test]
    fn a_lossy_reason_is_cut_between_characters() {
        // 61 two-byte characters are 122 bytes; the 62nd would end at 124.
        let frame = CloseFrame::lossy(CloseCode::NORMAL, &"é".repeat(100));
        assert_eq!(frame.reason(), "é".repeat(61));
    }

    #[test]
    fn a_code_is_made_of_any_number_and_shown_as_one() {
        assert_eq!(CloseCode::try_from(4000).map(|code| code.to_string()), Ok("4000".to_owned()));
        for (number, refused) in [(-1, 0), (999, 999), (i32::MAX, u16::MAX)] {
            let error = ProtocolError::InvalidCloseCode(refused);
            assert_eq!(CloseCode::try_from(number), Err(error), "{number}");
        }
    }
}
