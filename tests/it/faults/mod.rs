//! Faults on real sockets: after each of them the server holds nothing that belonged to its peer, no
//! descriptor, no task, no permit, no place in a room and nothing that is queued.
//!
//! | fault | test |
//! | --- | --- |
//! | RST at any stage, plain and TLS | `stages::a_peer_that_resets_the_connection_leaves_nothing_at_any_stage` |
//! | FIN at any stage, without a close frame or a `close_notify` | `stages::a_peer_that_is_gone_without_a_good_bye_leaves_nothing_at_any_stage` |
//! | half-close at any stage | `stages::a_peer_that_has_nothing_more_to_say_is_answered_and_leaves_nothing_at_any_stage` |
//! | half-close while a handler works | `http::message::a_client_that_half_closes_is_answered` |
//! | TCP ends without `close_notify`, or TLS without a close frame: `UnexpectedEof` both | `tls::stream::a_stream_that_is_cut_is_a_lost_one`, `a_close_notify_without_a_close_frame_is_a_lost_stream_too` |
//! | stops in a handshake of TLS, and stays | `tls::handshake::clients_that_stop_in_the_middle_of_a_handshake_are_dropped_at_the_deadline` |
//! | altered bytes in TLS | `tls::stream::bytes_that_were_altered_are_a_lost_stream` |
//! | what a handler is told of an end or a reset | `connection::wire::closing::a_stream_that_ends_without_a_close_frame_is_an_error_and_not_clean`, `a_stream_that_is_reset_is_an_error_for_every_user_of_it` |
//! | gone while it waits for a permit | `admission::endings::a_client_that_hangs_up_while_it_waits_leaves_the_queue_at_once` and its neighbours |
//! | gone before it is accepted | `http::accept::connections_that_are_gone_before_they_are_accepted_do_no_harm` |
//! | gone while an HTTP handler works | `http::deadline::the_handler_of_a_client_that_is_gone_is_dropped` |
//! | stops reading, and stays | `stalls::a_peer_that_stops_reading_is_given_up_although_it_is_still_there`; of HTTP, `http::deadline::a_client_that_never_reads_is_dropped` |
//! | stops reading, and reads on | `connection::abuse::a_client_that_never_reads_its_echoes_is_left_waiting` |
//! | does not answer a close frame | `connection::pressure::a_peer_that_does_not_answer_the_close_frame_is_given_up_after_the_close_timeout` |
//! | stops in a message, and stays | `connection::pressure::a_message_that_is_not_finished_in_time_fails_the_connection_with_1008` |
//! | 1 GiB for a peer that does not read, then does | `slow::a_gibibyte_waits_in_bounded_memory_for_a_peer_to_read_it_in_order` |
//! | the same for one that dies | `slow::a_peer_that_dies_with_a_gibibyte_ahead_of_it_leaves_nothing` |
//! | the same by another task's `Sender`, for which there is no way around the buffer | `connection::pressure::senders_of_other_tasks_wait_for_the_same_buffer` |
//! | the same by a room, which drops or closes | `rooms::servers::only_a_member_that_does_not_read_misses_messages` |
//! | no descriptors: the accept loop | `http::accept::a_server_out_of_file_descriptors_waits_without_spinning_and_recovers` |
//! | no descriptors: connections that are open | `descriptors::connections_go_on_while_there_is_no_descriptor_for_another` |
//! | the listener is shut down | `descriptors::connections_go_on_without_a_listener_and_others_come_when_it_is_back` |
//! | the address is taken | `http::listen::a_taken_port_is_named_and_ports_bound_before_are_free_again` |
//! | 5000 connections reset at once | `crowd::five_thousand_connections_that_are_reset_at_once_leave_nothing` |
//! | the wall clock jumps | none: all deadlines are `Instant`s, which do not follow it. Only the client reads it, where a `Retry-After` is a date, and rustls, for the validity of certificates |

mod kernel;
mod separate_process;
mod server;
mod site;

mod stages;

mod stalls;

mod slow;

mod descriptors;

mod crowd;
