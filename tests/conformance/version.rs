//! Which version the server says it is.

use crate::Outcome;
use crate::context::Context;

pub(crate) async fn server(ctx: Context) -> Outcome {
    let version = ctx.get("/version").await?;
    for part in ["major", "minor"] {
        let text = version[part].as_str().unwrap_or_default();
        anyhow::ensure!(text.parse::<u32>().is_ok(), "{part} is not an integer: {version}");
    }
    Ok(())
}
