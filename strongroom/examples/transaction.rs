//! Transactions: all or nothing over many keys, and over many files, whoever else writes.
//!
//! `cargo run -p strongroom --example transaction`

use strongroom::blocking::{KvTransaction, Repository};
use strongroom::{CreateOptions, Credentials};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let options = CreateOptions::new(Credentials::password("correct horse battery staple"));
    let repository = Repository::create("mem://example", options)?;
    let kv = repository.kv();
    kv.put("balance/anna", "100")?;
    kv.put("balance/ben", "0")?;

    // Run again from its beginning where another transaction changed what it had read.
    kv.transact(|transaction| transfer(transaction, "anna", "ben", 30))?;
    // An error on the way leaves everything as it was.
    let refused = kv.transact(|transaction| transfer(transaction, "ben", "anna", 1000));
    println!("{}", refused.err().map_or_else(String::new, |error| error.to_string()));
    for row in kv.scan(strongroom::kv::prefix(b"balance/")) {
        let (key, value) = row?;
        println!("{} = {}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
    }

    // Files alike: both names change at one stroke.
    let fs = repository.fs();
    fs.write("/settings", "old")?;
    fs.transact(|transaction| {
        transaction.rename("/settings", "/settings.bak")?;
        transaction.write("/settings", "new")
    })?;
    println!("{}", String::from_utf8_lossy(&fs.read("/settings")?));
    Ok(repository.close()?)
}

fn transfer(transaction: &mut KvTransaction, from: &str, to: &str, amount: u64) -> Result<(), Failure> {
    let (from, to) = (format!("balance/{from}"), format!("balance/{to}"));
    let left = balance(transaction, &from)?.checked_sub(amount).ok_or("not enough there")?;
    let sum = balance(transaction, &to)? + amount;
    transaction.put(from, left.to_string())?;
    transaction.put(to, sum.to_string())?;
    Ok(())
}

fn balance(transaction: &KvTransaction, key: &str) -> Result<u64, Failure> {
    let value = transaction.get(key)?.ok_or("no such account")?;
    Ok(std::str::from_utf8(&value)?.parse()?)
}
