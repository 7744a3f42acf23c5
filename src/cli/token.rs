//! `postrider token new`: makes a token for the API and shows it this once, with the line for the configuration, which holds only its
//! hash (promise 7).

use clap::{Args, Subcommand};
use serde_json::json;

use super::Answer;
use super::output::{self, Output};
use crate::token::{Role, TokenHash, generate};

#[derive(Subcommand)]
pub(super) enum Token {
    /// Makes a token; it is printed once and kept nowhere
    New(New),
}

#[derive(Args)]
pub(super) struct New {
    /// By which people know it, in the audit trail too
    #[arg(long, default_value = "admin", value_parser = name)]
    name: String,
    /// What it allows: viewer, operator or admin
    #[arg(long, default_value = "admin", value_parser = role)]
    role: Role,
    /// The one customer that it sees [default: all]
    #[arg(long, value_parser = customer)]
    customer: Option<String>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

fn name(text: &str) -> Result<String, String> {
    if (1..=100).contains(&text.chars().count()) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 100 characters".to_owned())
    }
}

fn role(text: &str) -> Result<Role, String> {
    Role::from_word(text).ok_or_else(|| "it must be viewer, operator or admin".to_owned())
}

fn customer(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.contains(char::is_control) {
        return Err("it is empty; leave --customer out for a token that sees all".to_owned());
    }
    Ok(text.trim().to_owned())
}

impl Token {
    pub(super) fn run(self) -> Answer {
        let Self::New(new) = self;
        new.run()
    }
}

impl New {
    fn run(self) -> Answer {
        let token = generate()?;
        let sha256 = TokenHash::of(&token).to_hex();
        if self.output == Output::Json {
            return output::print_json(&json!({
                "token": token,
                "name": self.name,
                "sha256": sha256,
                "role": self.role,
                "customer": self.customer,
            }));
        }
        // JSON text is TOML text too.
        let mut entry = format!(
            "{{ name = {}, sha256 = \"{sha256}\", role = \"{}\"",
            json!(self.name),
            self.role
        );
        if let Some(customer) = &self.customer {
            entry.push_str(&format!(", customer = {}", json!(customer)));
        }
        entry.push_str(" }");
        output::print(&format!("{token}\n"))?;
        eprintln!(
            "this is shown once. Put its hash into the configuration, under [web]:\n  tokens = [{entry}]\nand send it as: Authorization: Bearer {}...",
            token.get(..8).unwrap_or_default()
        );
        Ok(())
    }
}
