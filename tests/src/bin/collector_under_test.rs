//! The collector's own program, under a name that the tests find beside their own.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    headwater_tests::collector::serve().await
}
