//! One module for each promise. The light ones run everywhere; those behind the feature `machine` need
//! mosquitto, chromium or root, and fail where these are missing.

mod author;
mod bounds;
mod commits;
mod demo;
mod docs;
mod examples;
mod fleet;
mod harm;
mod late;
mod layout;
mod letters;
mod library;
mod live;
mod modules;
mod outputs;
mod stop;
mod stuck;
mod swap;
mod trust;
mod upstream;
mod words;

#[cfg(feature = "machine")]
mod broker;
#[cfg(feature = "machine")]
mod builtins;
#[cfg(feature = "machine")]
mod crash;
#[cfg(feature = "machine")]
mod disk;
#[cfg(feature = "machine")]
mod input;
#[cfg(feature = "machine")]
mod languages;
#[cfg(feature = "machine")]
mod page;
#[cfg(feature = "machine")]
mod points;
#[cfg(feature = "machine")]
mod power;
#[cfg(feature = "machine")]
mod proxied;
#[cfg(feature = "machine")]
mod proxy_tls;
#[cfg(feature = "machine")]
mod recorded;
#[cfg(feature = "machine")]
mod registry;
#[cfg(feature = "machine")]
mod remembered;
#[cfg(feature = "machine")]
mod resent;
#[cfg(feature = "machine")]
mod stamps;
#[cfg(feature = "machine")]
mod windows;
