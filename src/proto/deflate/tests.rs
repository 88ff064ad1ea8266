//! Tests of the negotiation: offers, answers and agreements.

use super::negotiation::{DeflateAnswerError, Terms, accept, check_answer, offer, *};
use crate::proto::extension;
use crate::proto::extension::Extension;
use crate::proto::extension::tests::noise;

const ANY: Terms = terms(true, true, 15, 15);

const fn terms(server: bool, client: bool, server_bits: u8, client_bits: u8) -> Terms {
    Terms {
        server_context_takeover: server,
        client_context_takeover: client,
        server_max_window_bits: server_bits,
        client_max_window_bits: client_bits,
    }
}

fn list(line: &str) -> Vec<Extension<'_>> {
    extension::parse([line].into_iter()).unwrap()
}

/// `parameters` of one permessage-deflate element, behind its name.
fn element(parameters: &str) -> String {
    format!("{PERMESSAGE_DEFLATE}{parameters}")
}

fn accepted(offer: &str, terms: Terms) -> Option<String> {
    accept(&list(offer), terms).map(|answer| answer.to_string())
}

fn checked(answer: &str, terms: Terms) -> Result<Option<DeflateParameters>, DeflateAnswerError> {
    check_answer(&list(answer), terms)
}

#[test]
fn an_offer_is_answered_with_the_terms_of_both_sides() {
    let refuse_server = terms(false, true, 15, 15);
    let refuse_client = terms(true, false, 15, 15);
    let small_server = terms(true, true, 11, 15);
    let small_client = terms(true, true, 15, 11);
    for (offer, terms, answer) in [
        ("", ANY, ""),
        ("; server_no_context_takeover", ANY, "; server_no_context_takeover"),
        ("; client_no_context_takeover", ANY, "; client_no_context_takeover"),
        ("", refuse_server, "; server_no_context_takeover"),
        ("; server_no_context_takeover", refuse_server, "; server_no_context_takeover"),
        ("", refuse_client, "; client_no_context_takeover"),
        ("; client_no_context_takeover", refuse_client, "; client_no_context_takeover"),
        ("; server_max_window_bits=9", ANY, "; server_max_window_bits=9"),
        ("; server_max_window_bits=15", ANY, "; server_max_window_bits=15"),
        ("; server_max_window_bits=\"10\"", ANY, "; server_max_window_bits=10"),
        ("; server_max_window_bits=\"1\\0\"", ANY, "; server_max_window_bits=10"),
        ("", small_server, "; server_max_window_bits=11"),
        ("; server_max_window_bits=9", small_server, "; server_max_window_bits=9"),
        ("; server_max_window_bits=12", small_server, "; server_max_window_bits=11"),
        ("; client_max_window_bits", ANY, ""),
        ("; client_max_window_bits=15", ANY, "; client_max_window_bits=15"),
        ("; client_max_window_bits=9", ANY, "; client_max_window_bits=9"),
        ("; client_max_window_bits=8", ANY, "; client_max_window_bits=8"),
        ("; client_max_window_bits", small_client, "; client_max_window_bits=11"),
        ("; client_max_window_bits=12", small_client, "; client_max_window_bits=11"),
        ("; client_max_window_bits=10", small_client, "; client_max_window_bits=10"),
        ("; client_max_window_bits=8", small_client, "; client_max_window_bits=8"),
        ("", small_client, ""),
        (
            "; client_max_window_bits; server_max_window_bits=13; client_no_context_takeover",
            terms(false, true, 12, 11),
            "; server_no_context_takeover; client_no_context_takeover; \
             server_max_window_bits=12; client_max_window_bits=11",
        ),
    ] {
        assert_eq!(accepted(&element(offer), terms), Some(element(answer)), "{offer} {terms:?}");
    }
}

#[test]
fn the_offers_of_section_7_1_3_are_accepted() {
    let simplest = "permessage-deflate";
    assert_eq!(accepted(simplest, ANY).as_deref(), Some(simplest));

    let small = "permessage-deflate; client_max_window_bits; server_max_window_bits=10";
    let answer = "permessage-deflate; server_max_window_bits=10";
    assert_eq!(accepted(small, ANY).as_deref(), Some(answer));

    let fallback = format!("{small}, permessage-deflate; client_max_window_bits");
    assert_eq!(accepted(&fallback, ANY).as_deref(), Some(answer));
}

#[test]
fn offers_that_must_be_declined_are_passed_over_for_the_next() {
    for declined in [
        "; unknown",
        "; unknown=1",
        "; Server_no_context_takeover",
        "; server_no_context_takeover=1",
        "; server_no_context_takeover=true",
        "; client_no_context_takeover=1",
        "; server_no_context_takeover; server_no_context_takeover",
        "; client_no_context_takeover; client_no_context_takeover",
        "; server_max_window_bits=10; server_max_window_bits=10",
        "; client_max_window_bits; client_max_window_bits",
        "; client_max_window_bits; client_max_window_bits=10",
        "; server_max_window_bits",
        "; server_max_window_bits=8",
        "; server_max_window_bits=7",
        "; server_max_window_bits=0",
        "; server_max_window_bits=16",
        "; server_max_window_bits=09",
        "; server_max_window_bits=010",
        "; server_max_window_bits=+9",
        "; server_max_window_bits=-9",
        "; server_max_window_bits=9.0",
        "; server_max_window_bits=0x9",
        "; server_max_window_bits=1O",
        "; server_max_window_bits=265",
        "; server_max_window_bits=99999999999999999999",
        "; client_max_window_bits=7",
        "; client_max_window_bits=16",
        "; client_max_window_bits=08",
        "; client_max_window_bits=+8",
        "; client_max_window_bits=\"\\08\"",
        "; client_max_window_bits=ten",
    ] {
        let declined = element(declined);
        assert_eq!(accepted(&declined, ANY), None, "{declined}");

        let next = element("; client_max_window_bits=12");
        let offers = format!("{declined}, {next}, permessage-deflate");
        assert_eq!(accepted(&offers, ANY), Some(next), "{declined}");
    }
}

#[test]
fn other_extensions_are_passed_over() {
    for offers in ["", "permessage-bzip2", "Permessage-Deflate", "x; permessage-deflate"] {
        assert_eq!(accepted(offers, ANY), None, "{offers}");
    }
    for offers in [
        "mux; max-channels=4, permessage-deflate, permessage-bzip2",
        "permessage-deflate; unknown, mux, permessage-deflate",
        "x; server_max_window_bits=9, permessage-deflate, permessage-deflate; \
         server_max_window_bits=9",
    ] {
        assert_eq!(accepted(offers, ANY), Some(element("")), "{offers}");
    }
}

#[test]
fn offers_on_several_lines_are_tried_in_order() {
    let lines = ["mux", "permessage-deflate; x", "permessage-deflate; server_max_window_bits=9"];
    let answer = accept(&extension::parse(lines.into_iter()).unwrap(), ANY);
    assert_eq!(answer.map(DeflateParameters::server_max_window_bits), Some(9));
}

#[test]
fn the_offer_of_a_client_states_its_terms() {
    for (terms, parameters) in [
        (ANY, "; client_max_window_bits"),
        (terms(false, true, 15, 15), "; server_no_context_takeover; client_max_window_bits"),
        (terms(true, false, 15, 15), "; client_no_context_takeover; client_max_window_bits"),
        (terms(true, true, 9, 15), "; server_max_window_bits=9; client_max_window_bits"),
        (terms(true, true, 15, 9), "; client_max_window_bits=9"),
        (
            terms(false, false, 10, 11),
            "; server_no_context_takeover; client_no_context_takeover; \
             server_max_window_bits=10; client_max_window_bits=11",
        ),
    ] {
        assert_eq!(offer(terms), element(parameters), "{terms:?}");
    }
}

#[test]
fn an_answer_that_fits_the_offer_is_agreed_on() {
    let small = terms(true, true, 12, 12);
    for (answer, terms, server_no, client_no, server_bits, client_bits) in [
        ("", ANY, false, false, 15, 15),
        ("; server_no_context_takeover", ANY, true, false, 15, 15),
        ("; client_no_context_takeover", ANY, false, true, 15, 15),
        ("; server_max_window_bits=10", ANY, false, false, 10, 15),
        ("; server_max_window_bits=\"10\"", ANY, false, false, 10, 15),
        ("; server_max_window_bits=8", ANY, false, false, 8, 15),
        ("; server_max_window_bits=15", ANY, false, false, 15, 15),
        ("; client_max_window_bits=9", ANY, false, false, 15, 9),
        ("; client_max_window_bits=15", ANY, false, false, 15, 15),
        ("; server_max_window_bits=12; client_max_window_bits=12", small, false, false, 12, 12),
        ("; client_max_window_bits=9; server_max_window_bits=8", small, false, false, 8, 9),
        ("; server_no_context_takeover", terms(false, true, 15, 15), true, false, 15, 15),
        // A client may change its own messages without an answer (§7.1.1.2, §7.1.2.2).
        ("", terms(true, false, 15, 15), false, true, 15, 15),
        ("", terms(true, true, 15, 10), false, false, 15, 10),
    ] {
        let agreed = checked(&element(answer), terms).unwrap().unwrap();
        assert_eq!(agreed.server_no_context_takeover(), server_no, "{answer} {terms:?}");
        assert_eq!(agreed.client_no_context_takeover(), client_no, "{answer} {terms:?}");
        assert_eq!(agreed.server_max_window_bits(), server_bits, "{answer} {terms:?}");
        assert_eq!(agreed.client_max_window_bits(), client_bits, "{answer} {terms:?}");
    }
}

#[test]
fn no_answer_means_no_compression() {
    assert_eq!(checked("", terms(false, false, 9, 9)), Ok(None));
}

#[test]
fn only_an_offered_extension_may_be_accepted_and_only_once() {
    for (answer, error) in [
        ("mux", "extension mux was not offered"),
        ("permessage-deflate, mux", "extension mux was not offered"),
        ("Permessage-deflate", "extension Permessage-deflate was not offered"),
        ("permessage-deflate, permessage-deflate", "permessage-deflate is accepted twice"),
    ] {
        let refused = checked(answer, ANY).map_err(|error| error.to_string());
        assert_eq!(refused, Err(error.to_owned()), "{answer}");
    }
}

#[test]
fn an_answer_that_does_not_fit_the_offer_is_an_error_of_its_own_kind() {
    use DeflateAnswerError as E;
    let refuse = terms(false, true, 15, 15);
    let small = terms(true, true, 12, 12);
    let malformed = |name: &str| E::ParameterMalformed(name.to_owned());
    let repeated = |name: &str| E::ParameterRepeated(name.to_owned());
    let too_big = |parameter| E::WindowTooBig { parameter, bits: 13, max: 12 };
    for (answer, terms, error) in [
        ("; x=1", ANY, E::ParameterUnknown("x".into())),
        ("; server_no_context_takeover=1", ANY, malformed(SERVER_NO_CONTEXT_TAKEOVER)),
        ("; client_no_context_takeover=1", ANY, malformed(CLIENT_NO_CONTEXT_TAKEOVER)),
        ("; server_max_window_bits", ANY, malformed(SERVER_MAX_WINDOW_BITS)),
        ("; server_max_window_bits=16", ANY, malformed(SERVER_MAX_WINDOW_BITS)),
        ("; client_max_window_bits", ANY, malformed(CLIENT_MAX_WINDOW_BITS)),
        ("; client_max_window_bits=09", ANY, malformed(CLIENT_MAX_WINDOW_BITS)),
        (
            "; server_no_context_takeover; server_no_context_takeover",
            ANY,
            repeated(SERVER_NO_CONTEXT_TAKEOVER),
        ),
        (
            "; client_max_window_bits=9; client_max_window_bits=9",
            ANY,
            repeated(CLIENT_MAX_WINDOW_BITS),
        ),
        ("; server_max_window_bits=13", small, too_big(SERVER_MAX_WINDOW_BITS)),
        (
            "; server_max_window_bits=12; client_max_window_bits=13",
            small,
            too_big(CLIENT_MAX_WINDOW_BITS),
        ),
        ("; client_max_window_bits=12", small, E::ParameterMissing(SERVER_MAX_WINDOW_BITS)),
        ("", refuse, E::ParameterMissing(SERVER_NO_CONTEXT_TAKEOVER)),
    ] {
        assert_eq!(checked(&element(answer), terms), Err(error), "{answer} {terms:?}");
    }
}

#[test]
fn the_smallest_window_may_be_answered_for_either_side() {
    // §7.1.2: 8 to 15, and the offer sets no lower bound.
    for terms in [ANY, terms(true, true, 12, 12), terms(true, true, 9, 9)] {
        let answer = element("; server_max_window_bits=8; client_max_window_bits=8");
        let agreed = checked(&answer, terms).unwrap().unwrap();
        assert_eq!((agreed.server_max_window_bits(), agreed.client_max_window_bits()), (8, 8));
        assert_eq!(agreed.to_string(), answer);
    }
}

#[test]
fn errors_name_the_fault() {
    let name = || "x".to_owned();
    let too_big = DeflateAnswerError::WindowTooBig { parameter: "x", bits: 13, max: 12 };
    for (error, text) in [
        (DeflateAnswerError::ExtensionNotOffered(name()), "extension x was not offered"),
        (DeflateAnswerError::ExtensionRepeated, "permessage-deflate is accepted twice"),
        (DeflateAnswerError::HeaderMalformed, "Sec-WebSocket-Extensions is malformed"),
        (DeflateAnswerError::ParameterMalformed(name()), "x is malformed"),
        (DeflateAnswerError::ParameterMissing("x"), "x was offered and is missing"),
        (DeflateAnswerError::ParameterRepeated(name()), "x is listed twice"),
        (DeflateAnswerError::ParameterUnknown(name()), "permessage-deflate has no parameter x"),
        (too_big, "x=13 exceeds the 12 of the offer"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn agreed_parameters_are_read_as_they_were_written() {
    for parameters in [
        "",
        "; server_no_context_takeover",
        "; client_no_context_takeover",
        "; server_max_window_bits=8",
        "; client_max_window_bits=15",
        "; server_no_context_takeover; client_no_context_takeover; \
         server_max_window_bits=9; client_max_window_bits=10",
    ] {
        let answer = element(parameters);
        let read: DeflateParameters = answer.parse().unwrap();
        assert_eq!(read.to_string(), answer);
    }
}

#[test]
fn a_text_that_is_not_one_answer_of_permessage_deflate_is_refused() {
    for text in [
        "",
        "permessage-deflate, permessage-deflate",
        "permessage-deflate;",
        "permessage-deflate; x",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; client_max_window_bits",
        "mux",
        "Permessage-Deflate",
    ] {
        let error = text.parse::<DeflateParameters>().unwrap_err();
        assert_eq!(error, InvalidDeflateParameters, "{text}");
        assert_eq!(error.to_string(), "not exactly one valid permessage-deflate element");
    }
}

#[test]
fn both_sides_of_this_crate_agree_for_all_terms() {
    let all =
        || (0..4 * 7 * 7_u8).map(|n| terms(n & 1 == 0, n & 2 == 0, 9 + n / 4 % 7, 9 + n / 28));
    for client in all() {
        let offer = offer(client);
        for server in all() {
            let answer = accept(&list(&offer), server).unwrap();
            let agreed = checked(&answer.to_string(), client);
            assert_eq!(agreed, Ok(Some(answer)), "{client:?} {server:?}");
        }
    }
}

#[test]
fn noise_is_declined_or_answered_within_the_rules() {
    let pieces = [
        PERMESSAGE_DEFLATE,
        SERVER_NO_CONTEXT_TAKEOVER,
        CLIENT_NO_CONTEXT_TAKEOVER,
        SERVER_MAX_WINDOW_BITS,
        CLIENT_MAX_WINDOW_BITS,
        "permessage-deflate;server_max_window_bits=9",
        "permessage-deflate;client_max_window_bits",
        ";",
        ";",
        "=",
        ",",
        "8",
        "1",
    ];
    let mut answered = 0;
    for line in noise(&pieces).take(50_000) {
        let Ok(extensions) = extension::parse([&*line].into_iter()) else { continue };
        let _ = check_answer(&extensions, ANY);
        let Some(answer) = accept(&extensions, terms(true, false, 12, 12)) else { continue };
        assert!((9..=12).contains(&answer.server_max_window_bits()), "{line}");
        assert!(answer.client_no_context_takeover(), "{line}");
        assert!(list(&answer.to_string()).len() == 1, "{line}");
        answered += 1;
    }
    assert!(answered > 100, "{answered}");
}
