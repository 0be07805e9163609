//! Real-looking data: a shop with customers, products, orders and their lines, of every common type.

use crate::kubectl::Result;
use crate::postgres::Postgres;

/// Name of the database.
pub const DATABASE: &str = "shop";
/// Orders that make a little over a million rows: 3 lines an order on average, an eighth of a customer, and the order.
pub const MILLION_ROWS: u32 = 300_000;

/// What psql reads, connected to any other database, to make the shop's roles, database and rows.
pub fn sql(orders: u32) -> String {
    include_str!("../fixtures/shop.sql").replace("$ORDERS", &orders.to_string())
}

/// Makes the shop in a server.
pub async fn fill(server: &Postgres, orders: u32) -> Result<()> {
    server.sql("postgres", &sql(orders)).await?;
    Ok(())
}
