//! The first frame of a connection, from any bytes: taken or refused as RFC 6455 §5.2 says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewire::frame::Role;
use tidewire_fuzz::oracle::{self, Frame, Limits};
use tidewire_fuzz::stream::Splits;
use tidewire_fuzz::{drive, memory};

const LIMITS: Limits = Limits { message: 1 << 20, frame: 1 << 18, fragments: 1024 };

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (is_server, split, bytes) = input;
    let role = if is_server { Role::Server } else { Role::Client };
    let expected = oracle::read(bytes, role, &LIMITS);
    // Whatever length a header announces.
    memory::within(200_000 + 8 * bytes.len(), || {
        drive::run(async {
            let options = drive::options(&LIMITS);
            let (mut ws, _) = drive::connect(bytes, Splits::new(&[split]), role, &options);
            match ws.recv_frame().await {
                Ok(Some(frame)) => {
                    let (opcode, payload) = (frame.opcode().into(), frame.payload().to_vec());
                    let frame = Frame { fin: frame.fin(), opcode, payload };
                    assert_eq!(expected.frames.first(), Some(&frame));
                }
                Ok(None) => panic!("an end without a close frame"),
                Err(error) => {
                    assert!(expected.frames.is_empty(), "{error} instead of {expected:?}");
                    drive::check_end(&Err(error), expected.end);
                }
            }
        });
    });
});
