//! The collector as a process of its own, so that it can be killed: its library on a store file
//! and a port of loopback, both arguments.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use headwater_collector::{Collector, Config};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let store = arguments.next().context("the store's file is the first argument")?;
    let port: u16 = arguments.next().context("the port is the second argument")?.parse()?;
    let collector = Collector::open(Config::new(store))?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    collector.serve(listener, std::future::pending()).await?;
    Ok(())
}
