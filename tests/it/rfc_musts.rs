//! Every MUST and MUST NOT of RFC 6455 §4 to §8 that a server can keep or break, and the test that
//! would notice.
//!
//! Left out is what is asked of clients' handshakes (§4.1) where a server has no hand in it, of proxies
//! (§4.1, §10) and of extensions (§9), whose are in `connection::deflate`.

use crate::accept;
use crate::admission::endings;
use crate::connection::wire::{closing, control, data, text, violations};
use crate::connection::{handler_blocked, pressure, senders};
use crate::upgrade::{handler, handshake, subprotocols};

type Must = (&'static str, &'static str, fn());

#[rustfmt::skip]
const MUSTS: &[Must] = &[
    ("4.1", "a client sends nothing before the 101: it does not wait for one", endings::a_client_that_sends_before_its_101_does_not_wait),
    ("4.1", "subprotocols are tokens", subprotocols::an_offer_that_is_not_a_list_of_tokens_is_a_400_that_says_so),
    ("4.2.1", "a request that does not match is not processed, and gets an HTTP error", handshake::a_request_that_is_not_an_opening_handshake_is_answered_with_its_status),
    ("4.2.1", "Upgrade and Connection are compared without case, in lists", handshake::tokens_may_stand_in_any_case_on_any_line),
    ("4.2.1", "Host has the server's authority", accept::a_host_that_is_empty_or_none_is_refused),
    ("4.2.2", "an origin that is not accepted gets a 403", handshake::a_page_of_another_site_is_refused_unless_it_is_allowed),
    ("4.2.2", "the answer is 101 with Upgrade, Connection and the key's hash", handshake::the_request_of_section_1_3_is_answered_with_101),
    ("4.2.2", "the headers of the handshake are its own", handler::the_101_has_the_prepared_headers_except_those_of_the_handshake_itself),
    ("4.2.2", "no extension or subprotocol is agreed to that is not in use", handshake::extensions_and_subprotocols_that_are_offered_are_not_agreed_to),
    ("4.2.2", "frames may follow the handshake at once", handshake::frames_that_come_with_the_request_are_not_lost),
    ("4.4", "another version is answered with those that are spoken", handshake::another_version_is_answered_with_the_one_that_is_spoken),
    ("5.1", "a client masks all frames, a server none", data::a_client_masks_with_a_new_key_each_time_and_a_server_does_not_mask),
    ("5.1", "a server closes on a frame without a mask", violations::a_client_frame_without_a_mask_fails_the_connection),
    ("5.1", "a client closes on a frame with a mask", violations::a_server_frame_with_a_mask_fails_the_connection),
    ("5.2", "reserved bits that nothing gives a meaning fail the connection", violations::reserved_bits_fail_the_connection),
    ("5.2", "an unknown opcode fails the connection", violations::reserved_opcodes_fail_the_connection),
    ("5.2", "the least number of bytes encodes a length: sent", data::messages_of_every_size_are_echoed),
    ("5.2", "the least number of bytes encodes a length: received", violations::a_length_in_more_bytes_than_it_needs_fails_the_connection),
    ("5.2", "the top bit of a 64-bit length is 0", violations::a_length_with_its_top_bit_set_fails_the_connection),
    ("5.3", "each frame has a new key that cannot be predicted", data::a_client_masks_with_a_new_key_each_time_and_a_server_does_not_mask),
    ("5.4", "fragments are joined in the order they were sent in", data::fragments_are_joined_in_order_with_control_frames_between),
    ("5.4", "fragments of messages are not interleaved: received", violations::fragments_out_of_order_fail_the_connection),
    ("5.4", "fragments of messages are not interleaved: sent", control::a_frame_that_would_break_the_protocol_is_refused_and_not_sent),
    ("5.4", "fragments of messages are not interleaved: sent by two tasks", senders::no_message_falls_between_the_fragments_that_another_task_sends_meanwhile),
    ("5.4", "control frames are handled in the middle of a message", data::fragments_are_joined_in_order_with_control_frames_between),
    ("5.4", "control frames are not fragmented", violations::a_fragmented_control_frame_fails_the_connection),
    ("5.4", "both fragmented and unfragmented messages are received", data::fragments_are_joined_in_order_with_control_frames_between),
    ("5.5", "control frames have 125 bytes or fewer: received", violations::a_control_frame_that_is_too_long_fails_the_connection),
    ("5.5", "control frames have 125 bytes or fewer: sent", control::a_frame_that_would_break_the_protocol_is_refused_and_not_sent),
    ("5.5.1", "the body of a close frame begins with a code", violations::a_close_frame_that_is_malformed_fails_the_connection),
    ("5.5.1", "no data follows our close frame", closing::nothing_is_sent_after_a_close_frame),
    ("5.5.1", "no data follows our close frame, whoever sends it", senders::no_message_follows_the_close_frame_that_another_task_sends_meanwhile),
    ("5.5.1", "a close frame is answered with one, unless one was sent", closing::a_close_frame_is_answered_with_its_code_and_the_stream_ends),
    ("5.5.1", "a close frame may wait for the message that is being sent", closing::messages_before_a_close_frame_or_a_violation_are_answered_first),
    ("5.5.1", "after both close frames the stream is closed", closing::close_sends_the_frame_after_all_else_and_waits_for_the_answer),
    ("5.5.1", "the server closes the stream at once", closing::a_server_ends_the_stream_first_and_reads_the_bytes_that_still_come),
    ("5.5.2", "a ping is answered with a pong", control::a_ping_is_answered_once_with_its_own_payload),
    ("5.5.2", "a ping is answered with a pong: while the handler waits", handler_blocked::a_handler_that_waits_for_something_else_answers_pings),
    ("5.5.2", "a ping is answered with a pong: when nobody receives", handler_blocked::a_handler_that_never_receives_answers_pings),
    ("5.5.3", "a pong has the payload of its ping", control::a_ping_is_answered_once_with_its_own_payload),
    ("5.5.3", "a pong that nobody asked for is not answered", control::an_unsolicited_pong_is_not_answered),
    ("5.6", "a text message is UTF-8 as a whole, not in its frames", text::text_with_characters_of_all_lengths_is_received_for_every_cut),
    ("6.1", "data is sent on an open connection only", closing::nothing_is_sent_after_a_close_frame),
    ("6.1", "data is sent in frames, the last with FIN", control::control_frames_pass_between_the_fragments_that_are_sent),
    ("6.2", "a server removes the mask of what it receives", data::messages_of_every_size_are_echoed),
    ("7.1.5", "without a close frame the code is 1006, without a code 1005", closing::a_stream_that_ends_without_a_close_frame_is_an_error_and_not_clean),
    ("7.1.7", "nothing is processed once the connection has failed", violations::nothing_that_follows_a_violation_is_read),
    ("7.1.7", "nothing is answered once the connection has failed", violations::a_ping_behind_a_violation_is_not_answered),
    ("7.1.7", "a client does not end the stream before the server", closing::a_client_waits_for_the_server_to_end_the_stream),
    ("7.3", "a peer that does not answer is not waited for without end", pressure::a_peer_that_does_not_answer_the_close_frame_is_given_up_after_the_close_timeout),
    ("7.4.1", "1005, 1006 and 1015 are not sent", closing::codes_that_may_not_travel_are_refused_and_nothing_is_sent),
    ("7.4.1", "1011 tells of a condition that kept the server from its work", handler_blocked::the_outcome_of_a_handler_is_told_in_its_close_frame),
    ("7.4.2", "codes below 1000 are not used", violations::a_close_frame_that_is_malformed_fails_the_connection),
    ("8.1", "text that is not UTF-8 fails the connection", text::text_that_is_not_utf_8_fails_the_connection_with_1007),
    ("8.1", "text that is not UTF-8 fails the connection: in a fragment", text::a_bad_byte_in_the_third_fragment_fails_the_connection_there),
    ("8.1", "text that is not UTF-8 fails the connection: in a large frame", text::a_bad_byte_in_the_middle_of_a_large_frame_fails_the_connection_there),
    ("8.1", "text that is not UTF-8 fails the connection: cut at its end", text::text_that_ends_inside_a_character_fails_the_connection),
];

/// That each test exists is checked by the compiler; this checks that the table can be read.
#[test]
fn the_table_is_in_the_order_of_the_rfc_and_says_each_thing_once() {
    let number = |section: &str| -> Vec<u8> {
        section.split('.').map(|part| part.parse().unwrap()).collect()
    };
    for ((before, ..), (after, ..)) in MUSTS.iter().zip(&MUSTS[1..]) {
        assert!(number(before) <= number(after), "§{before} is before §{after}");
    }
    let says: std::collections::HashSet<_> = MUSTS.iter().map(|must| (must.0, must.1)).collect();
    assert_eq!(says.len(), MUSTS.len());
    let sections: std::collections::HashSet<_> =
        MUSTS.iter().map(|must| number(must.0)[0]).collect();
    assert_eq!(sections, (4..=8).collect());
}
