//! The two worlds of the contract, and the checks that hold for the exports and answers of both.

use super::Rejection;
use super::contract::{Answer, RejectionOut};
use super::guest::{GuestData, clip};
use wasmtime::component::types::{self, ComponentItem};
use wasmtime::component::{ComponentNamedList, Instance, Lift, Lower};
use wasmtime::{Engine, Store};

/// A world of the contract: the exports of an instance.
pub trait ModuleWorld: Sized {
    /// The settings and facts of a module at work that only this world has.
    type Own: Default;

    /// The world's name in the contract.
    const NAME: &'static str;

    /// Checks that the exports beside `init` are there and have the contract's types.
    fn check(exports: &ComponentExports<'_>) -> Answer<()>;

    /// Finds the exports that were checked.
    fn find(instance: &Instance, store: &mut Store<GuestData>) -> Option<Self>;
}

/// The exports of a component.
pub struct ComponentExports<'a> {
    pub(super) engine: &'a Engine,
    pub(super) component: types::Component,
}

impl ComponentExports<'_> {
    /// Returns true if there is an export of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.component.get_export(self.engine, name).is_some()
    }

    /// Checks that there is a function of that name, parameters and result.
    pub(super) fn check<P, R>(&self, name: &str) -> Answer<()>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        match self.component.get_export(self.engine, name).map(|export| export.ty) {
            Some(ComponentItem::ComponentFunc(function)) => function
                .typecheck::<P, R>(&self.component.instance_type())
                .map_err(|error| format!("`{name}` with another type: {error:#}")),
            _ => {
                let exports = self.component.exports(self.engine).map(|(name, _)| name);
                Err(format!("no `{name}` among the exports {:?}", exports.collect::<Vec<_>>()))
            }
        }
    }
}

/// Takes over the rejections of a call, once it is checked that the module names each input at most once, and no
/// others.
pub(super) fn accept_rejections(rejected: Vec<RejectionOut>, inputs: usize) -> Answer<Vec<Rejection>> {
    let mut seen = vec![false; inputs];
    for RejectionOut { index, .. } in &rejected {
        match seen.get_mut(*index as usize) {
            None => return Err(format!("the module rejected input {index} of {inputs}")),
            Some(true) => return Err(format!("the module rejected input {index} twice")),
            Some(seen) => *seen = true,
        }
    }
    let accept = |one: RejectionOut| Rejection { index: one.index as usize, reason: clip(one.reason) };
    Ok(rejected.into_iter().map(accept).collect())
}

/// Returns the rejections of a part of the inputs, by their positions in the whole.
pub(super) fn shifted(rejected: Vec<Rejection>, start: usize) -> impl Iterator<Item = Rejection> {
    rejected.into_iter().map(move |one| Rejection { index: start + one.index, ..one })
}

/// Checks that a call gave an answer for each input.
pub(super) fn check_count(answers: usize, inputs: usize) -> Answer<()> {
    if answers == inputs {
        return Ok(());
    }
    Err(format!("the module gave {answers} answers for {inputs} inputs"))
}
