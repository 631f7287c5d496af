//! The values that a stateful transform remembers.
//!
//! **Invariants.** A call that fails has changed nothing. A change is handed out once, for the commit
//! that holds the results of the same calls; until then, and for as long as it is at hand, the value
//! is read from here, afterwards from the store. So names and values are a function of the
//! journal, as window state is.
//!
//! **Limits.** [`NAME_BYTES_MAX`], [`VALUE_BYTES_MAX`], the names as configured, and 8 MiB in one call:
//! beyond them `set` is refused, and all values stay. Values at hand take [`KEPT_BYTES_MAX`] and the bytes changed
//! since the last commit.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

/// The length of the longest name.
pub const NAME_BYTES_MAX: usize = 512;
/// The size of the largest value.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// The bytes that one call may set.
const CALL_SET_BYTES_MAX: usize = 8 << 20;
/// The bytes of unchanged names and values kept in memory.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// The memory that a value takes beside its bytes: estimated from the types.
const ENTRY_BYTES: usize = 120;

/// A name and its new value; `None` removes.
pub type Change = (String, Option<Vec<u8>>);

/// The committed values.
pub trait StateStore: fmt::Debug + Send {
    /// Reads the value of a name.
    ///
    /// # Errors
    /// The reason why it cannot be read, in words for the operator.
    fn value(&self, name: &str) -> Result<Option<Vec<u8>>, String>;
}

/// The state of one transform, which outlives its instances.
#[derive(Debug, Default)]
pub(super) struct RememberedState {
    committed: Option<Box<dyn StateStore>>,
    /// Names with a value, committed or not.
    names: u64,
    names_max: u64,
    kept: HashMap<String, KeptValue>,
    /// The bytes of `kept`.
    bytes: usize,
    /// The bytes of the changes not handed out yet.
    changed_bytes: usize,
    /// The values that the running call changed, as they were before.
    before: HashMap<String, KeptValue>,
    /// The bytes that the running call has set.
    call_bytes: usize,
    /// The reason why a committed value cannot be read: the call failed for no fault of the module's.
    broken: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct KeptValue {
    value: Option<Vec<u8>>,
    changed: bool,
}

impl KeptValue {
    fn bytes(&self, name: &str) -> usize {
        ENTRY_BYTES + name.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

impl RememberedState {
    /// Returns an empty state for at most so many names.
    pub(super) fn new(names_max: u64) -> Self {
        Self { names_max, ..Self::default() }
    }

    /// Goes on from the committed values, and from nothing else: so many names.
    pub(super) fn restore(&mut self, committed: Box<dyn StateStore>, names: u64) {
        *self = Self { committed: Some(committed), names, ..Self::new(self.names_max) };
    }

    pub(super) fn names(&self) -> u64 {
        self.names
    }

    /// Returns the bytes to be committed.
    pub(super) fn changed_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// Takes the reason why a committed value cannot be read, if so.
    pub(super) fn broken(&mut self) -> Option<String> {
        self.broken.take()
    }

    /// Takes the changes since this was last called.
    pub(super) fn drain(&mut self) -> Vec<Change> {
        self.changed_bytes = 0;
        let changed = self.kept.iter_mut().filter(|(_, kept)| kept.changed);
        let changes = changed.map(|(name, kept)| {
            kept.changed = false;
            (name.clone(), kept.value.clone())
        });
        changes.collect()
    }

    /// Begins a call, and makes room for the values that it reads.
    pub(super) fn begin(&mut self) {
        self.call_bytes = 0;
        if self.bytes > KEPT_BYTES_MAX + self.changed_bytes {
            self.kept.retain(|_, kept| kept.changed);
            self.bytes = self.kept.iter().map(|(name, kept)| kept.bytes(name)).sum();
        }
    }

    /// Keeps the changes of the call, which succeeded.
    pub(super) fn keep(&mut self) {
        for (name, _) in self.before.drain() {
            let Some(kept) = self.kept.get_mut(&name) else { continue };
            kept.changed = true;
            self.changed_bytes += kept.bytes(&name);
        }
    }

    /// Undoes the changes of the call, which failed.
    pub(super) fn undo(&mut self) {
        for (name, before) in std::mem::take(&mut self.before) {
            self.put(name, before);
        }
    }

    pub(super) fn get(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        if let Some(kept) = self.kept.get(name) {
            return Ok(kept.value.clone());
        }
        let value = match &self.committed {
            Some(committed) => {
                committed.value(name).inspect_err(|error| self.broken = Some(error.clone()))?
            }
            None => None,
        };
        let kept = KeptValue { value: value.clone(), changed: false };
        self.bytes += kept.bytes(name);
        self.kept.insert(name.to_owned(), kept);
        Ok(value)
    }

    /// Sets a value. The inner error is the module's, the outer one the store's.
    pub(super) fn set(&mut self, name: String, value: Vec<u8>) -> Result<Result<(), String>, String> {
        let too_long =
            |what, bytes, max| Ok(Err(format!("the {what} has {bytes} bytes, at most {max} are kept")));
        if name.len() > NAME_BYTES_MAX {
            return too_long("name", name.len(), NAME_BYTES_MAX);
        }
        if value.len() > VALUE_BYTES_MAX {
            return too_long("value", value.len(), VALUE_BYTES_MAX);
        }
        self.call_bytes += name.len() + value.len();
        if self.call_bytes > CALL_SET_BYTES_MAX {
            return too_long("call's state", self.call_bytes, CALL_SET_BYTES_MAX);
        }
        let known = self.get(&name)?.is_some();
        if !known && self.names >= self.names_max {
            let max = self.names_max;
            return Ok(Err(format!("there are {max} names, and no more are kept: raise `state_names_max`")));
        }
        self.change(name, Some(value));
        Ok(Ok(()))
    }

    pub(super) fn remove(&mut self, name: String) -> Result<(), String> {
        if self.get(&name)?.is_some() {
            self.change(name, None);
        }
        Ok(())
    }

    /// Changes a value that is at hand.
    fn change(&mut self, name: String, value: Option<Vec<u8>>) {
        let Some(before) = self.kept.get(&name).cloned() else { return };
        let changed = before.changed;
        if let Entry::Vacant(first) = self.before.entry(name.clone()) {
            first.insert(before);
        }
        self.put(name, KeptValue { value, changed });
    }

    fn put(&mut self, name: String, kept: KeptValue) {
        let before = self.kept.get(&name);
        let was = before.is_some_and(|before| before.value.is_some());
        self.names = self.names + u64::from(kept.value.is_some()) - u64::from(was);
        let bytes = before.map_or(0, |before| before.bytes(&name));
        self.bytes = self.bytes + kept.bytes(&name) - bytes;
        self.kept.insert(name, kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::{Arc, Mutex, PoisonError};

    type Committed = Arc<Mutex<HashMap<String, Vec<u8>>>>;

    #[derive(Debug)]
    struct Shared(Committed);

    impl StateStore for Shared {
        fn value(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
            Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
        }
    }

    fn commit(state: &mut RememberedState, committed: &Committed) {
        let mut committed = committed.lock().unwrap();
        for (name, value) in state.drain() {
            match value {
                Some(value) => drop(committed.insert(name, value)),
                None => drop(committed.remove(&name)),
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Act {
        Get(u8),
        Set(u8, u8),
        Remove(u8),
        Keep,
        Fail,
        Commit,
        /// The changes that were not committed are gone, and made again by nobody here.
        Restart,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            (0..6_u8).prop_map(Act::Get),
            (0..6_u8, any::<u8>()).prop_map(|(name, value)| Act::Set(name, value)),
            (0..6_u8).prop_map(Act::Remove),
            Just(Act::Keep),
            Just(Act::Fail),
            Just(Act::Commit),
            Just(Act::Restart),
        ];
        prop::collection::vec(act, 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn it_is_a_map_in_which_failed_calls_and_crashes_leave_nothing(acts in acts()) {
            const NAMES_MAX: usize = 4;
            let committed = Committed::default();
            let open = |committed: &Committed| {
                let mut state = RememberedState::new(NAMES_MAX as u64);
                let names = committed.lock().unwrap().len() as u64;
                state.restore(Box::new(Shared(Arc::clone(committed))), names);
                state
            };
            let mut state = open(&committed);
            let mut call = HashMap::<String, Vec<u8>>::new();
            let mut kept = HashMap::new();
            for act in acts {
                match act {
                    Act::Get(name) => {
                        let name = name.to_string();
                        prop_assert_eq!(state.get(&name).unwrap(), call.get(&name).cloned());
                    }
                    Act::Set(name, value) => {
                        let name = name.to_string();
                        let fits = call.contains_key(&name) || call.len() < NAMES_MAX;
                        let set = state.set(name.clone(), vec![value]).unwrap();
                        prop_assert_eq!(set.is_ok(), fits);
                        if fits {
                            call.insert(name, vec![value]);
                        }
                    }
                    Act::Remove(name) => {
                        state.remove(name.to_string()).unwrap();
                        call.remove(&name.to_string());
                    }
                    Act::Keep => {
                        state.keep();
                        state.begin();
                        kept.clone_from(&call);
                    }
                    Act::Fail | Act::Commit | Act::Restart => {
                        state.undo();
                        state.begin();
                        if matches!(act, Act::Commit) {
                            commit(&mut state, &committed);
                            prop_assert_eq!(&*committed.lock().unwrap(), &kept);
                        } else if matches!(act, Act::Restart) {
                            state = open(&committed);
                            kept.clone_from(&committed.lock().unwrap());
                        }
                        call.clone_from(&kept);
                    }
                }
                prop_assert_eq!(state.names(), call.len() as u64);
            }
        }
    }

    #[test]
    fn what_is_too_much_is_refused_and_what_there_is_stays() {
        let mut state = RememberedState::new(1_000_000);
        state.set("a".to_owned(), vec![1]).unwrap().unwrap();
        assert!(state.set("x".repeat(NAME_BYTES_MAX + 1), vec![]).unwrap().is_err());
        assert!(state.set("a".to_owned(), vec![0; VALUE_BYTES_MAX + 1]).unwrap().is_err());
        let refused =
            (0..1000).find(|n| state.set(n.to_string(), vec![0; VALUE_BYTES_MAX]).unwrap().is_err());
        assert_eq!(refused, Some(CALL_SET_BYTES_MAX / (VALUE_BYTES_MAX + 1)));
        assert_eq!(state.get("a").unwrap(), Some(vec![1]));
    }

    #[test]
    fn what_did_not_change_is_forgotten_at_the_bound_and_read_again() {
        let committed = Committed::default();
        committed.lock().unwrap().extend((0..100).map(|name| (name.to_string(), vec![7; VALUE_BYTES_MAX])));
        let mut state = RememberedState::new(1000);
        state.restore(Box::new(Shared(Arc::clone(&committed))), 100);
        state.set("new".to_owned(), vec![1]).unwrap().unwrap();
        state.keep();
        for name in 0..100 {
            state.begin();
            assert_eq!(state.get(&name.to_string()).unwrap().map(|value| value.len()), Some(VALUE_BYTES_MAX));
            assert!(state.bytes <= KEPT_BYTES_MAX + 2 * VALUE_BYTES_MAX, "{}", state.bytes);
        }
        assert_eq!(state.drain(), [("new".to_owned(), Some(vec![1]))]);
        assert_eq!(state.drain(), []);
    }
}
