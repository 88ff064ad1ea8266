//! Connections, peers that stall, calls that are given up, and a clock: whenever nothing can go on, nothing
//! is owed.
//!
//! The worlds are those of `tests/it/connection/quiescence`, whose `judge` lists the debts.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use tidewire_fuzz::crowd::spawned_futures;

#[path = "../../tests/it/connection/quiescence/world/mod.rs"]
mod world;

fuzz_target!(|input: &[u8]| world::run(input, spawned_futures, false));

// Every other input is random: in code whose faults were known, these found within seconds what mutations alone
// missed in a minute.
fuzz_mutator!(|input: &mut [u8], len: usize, max_len: usize, seed: u32| {
    if seed % 2 == 0 {
        return fuzzer_mutate(input, len, max_len);
    }
    let mut random = u64::from(seed);
    input[..max_len].fill_with(|| {
        // Marsaglia's xorshift64.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()[4]
    });
    max_len
});
