//! The choice of a subprotocol ([RFC 6455 §1.9], §4.2.2).
//!
//! [RFC 6455 §1.9]: https://www.rfc-editor.org/rfc/rfc6455#section-1.9

#[cfg(feature = "accept")]
use super::HandshakeError;

/// The subprotocols of the server. Names are compared as they are, upper and lower case included.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subprotocols {
    /// In order of preference.
    pub(crate) supported: Vec<String>,
    /// Whether a client is refused if none is agreed on.
    pub(crate) is_required: bool,
}

#[cfg(feature = "accept")]
impl Subprotocols {
    /// Chooses from what the client offers, or takes what the handler has `chosen` itself; `None` leaves the header
    /// out of the answer.
    pub(crate) fn choose<'a>(
        &self,
        chosen: Option<&String>,
        offered: &[&'a str],
    ) -> Result<Option<&'a str>, HandshakeError> {
        let find = |name: &String| offered.iter().copied().find(|offer| offer == name);
        if let Some(name) = chosen {
            return find(name).map(Some).ok_or(HandshakeError::SubprotocolNotOffered);
        }
        match self.supported.iter().find_map(find) {
            None if self.is_required => Err(HandshakeError::SubprotocolUnsupported),
            found => Ok(found),
        }
    }
}

#[cfg(all(test, feature = "accept"))]
mod tests {
    use super::*;

    fn subprotocols(supported: &[&str], is_required: bool) -> Subprotocols {
        let supported = supported.iter().map(|&name| name.to_owned()).collect();
        Subprotocols { supported, is_required }
    }

    #[test]
    fn the_order_of_the_server_decides() {
        let ours = subprotocols(&["chat.v2", "chat.v1"], false);
        for (offered, choice) in [
            (&["chat.v1", "chat.v2"][..], Some("chat.v2")),
            (&["chat.v1"], Some("chat.v1")),
            (&["mqtt", "chat.v1"], Some("chat.v1")),
            (&["Chat.v1", "chat.v11"], None),
            (&[], None),
        ] {
            assert_eq!(ours.choose(None, offered), Ok(choice), "{offered:?}");
        }
    }

    #[test]
    fn a_choice_of_the_handler_must_have_been_offered() {
        let ours = subprotocols(&["chat.v2"], false);
        let chosen = "mqtt".to_owned();
        assert_eq!(ours.choose(Some(&chosen), &["chat.v2", "mqtt"]), Ok(Some("mqtt")));
        for offered in [&["chat.v2"][..], &[]] {
            assert_eq!(
                ours.choose(Some(&chosen), offered),
                Err(HandshakeError::SubprotocolNotOffered)
            );
        }
    }

    #[test]
    fn one_that_is_required_must_be_found() {
        let ours = subprotocols(&["chat.v2"], true);
        assert_eq!(ours.choose(None, &["chat.v2"]), Ok(Some("chat.v2")));
        for offered in [&["chat.v1"][..], &[]] {
            assert_eq!(ours.choose(None, offered), Err(HandshakeError::SubprotocolUnsupported));
        }
    }
}
