//! Calls with many inputs: cut into batches, and narrowed down to the culprit where one fails.

use super::contract::Answer;
use super::guest::GuestData;
use super::instance::{CallFailure, CallFault, ModuleCalls};
use super::world::ModuleWorld;
use std::ops::Range;
use wasmtime::Store;

/// Inputs of one call: enough that a call's own cost is small, few enough to go through one by one.
pub(super) const CALL_INPUTS_MAX: usize = 256;

/// Bytes of input of one call, unless a single input is larger.
pub(super) const CALL_BYTES_MAX: usize = 1 << 20;

impl<W: ModuleWorld> ModuleCalls<W> {
    /// Calls with all inputs, batch by batch. `done` gets each part of them in order: with an answer, or a single
    /// input with the reason why there is none, which is counted as a trip if it is one.
    pub(super) fn in_batches<T, R>(
        &mut self,
        inputs: &[T],
        bytes: impl Fn(&T) -> usize,
        mut call: impl FnMut(&W, &mut Store<GuestData>, &[T]) -> wasmtime::Result<Answer<R>>,
        mut done: impl FnMut(Range<usize>, Result<R, &CallFailure>),
    ) {
        let mut failures = Vec::new();
        for batch in batches(inputs, bytes) {
            self.narrow(
                batch,
                |world, store, range| call(world, store, &inputs[range]),
                |range, answer| match answer {
                    Ok(answer) => done(range, Ok(answer)),
                    Err(failure) => {
                        done(range, Err(&failure));
                        failures.push(failure);
                    }
                },
            );
        }
        for failure in failures {
            self.blame(failure);
        }
    }

    /// Calls with all of `inputs`, and if that fails with one after the other. `done` gets each part of them in order:
    /// with an answer, or a single input with the failure.
    pub(super) fn narrow<R>(
        &mut self,
        inputs: Range<usize>,
        mut call: impl FnMut(&W, &mut Store<GuestData>, Range<usize>) -> wasmtime::Result<Answer<R>>,
        mut done: impl FnMut(Range<usize>, Result<R, CallFailure>),
    ) {
        let one_by_one = match self.attempt(|world, store| call(world, store, inputs.clone())) {
            Ok(answer) => return done(inputs, Ok(answer)),
            // Nor would there be an instance for the next.
            Err(fault @ (CallFault::Start(_) | CallFault::Settings(_))) => Some(fault),
            Err(fault) if inputs.len() == 1 => Some(fault),
            Err(_) => None,
        };
        for input in inputs {
            let one = input..input + 1;
            let answer = match &one_by_one {
                Some(fault) => Err(fault.clone()),
                None => self.attempt(|world, store| call(world, store, one.clone())),
            };
            done(one, answer.map_err(CallFailure::from));
        }
    }

    /// Calls with one input.
    pub(super) fn one<R>(
        &mut self,
        call: impl FnMut(&W, &mut Store<GuestData>) -> wasmtime::Result<Answer<R>>,
    ) -> Result<R, CallFailure> {
        self.attempt(call).map_err(CallFailure::from)
    }
}

/// Returns ranges of inputs of which each fits one call.
pub(super) fn batches<T>(inputs: &[T], bytes: impl Fn(&T) -> usize) -> Vec<Range<usize>> {
    let mut batches = Vec::with_capacity(inputs.len() / CALL_INPUTS_MAX + 1);
    let mut start = 0;
    let mut sum: usize = 0;
    for (index, input) in inputs.iter().enumerate() {
        let bytes = bytes(input);
        if index > start && (index - start == CALL_INPUTS_MAX || sum + bytes > CALL_BYTES_MAX) {
            batches.push(start..index);
            start = index;
            sum = 0;
        }
        sum += bytes;
    }
    if start < inputs.len() {
        batches.push(start..inputs.len());
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sizes: &[usize], expected: &[Range<usize>]) {
        assert_eq!(batches(sizes, |size| *size), expected);
    }

    #[test]
    fn batches_hold_many_small_inputs_or_one_large() {
        check(&[], &[]);
        check(&[1; 257], &[0..256, 256..257]);
        check(&[1; 600], &[0..256, 256..512, 512..600]);
        check(&[CALL_BYTES_MAX, 1, 1], &[0..1, 1..3]);
        check(&[1, CALL_BYTES_MAX * 2, 1], &[0..1, 1..2, 2..3]);
        check(&[CALL_BYTES_MAX / 2; 3], &[0..2, 2..3]);
    }
}
