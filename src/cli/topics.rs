//! `postrider topics plan` and `apply`: the topics that are needed, shown or created. What exists is never changed: somebody may
//! have had a reason, and a wrong retention can lose events; the command that would change it is shown instead.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::{self, Output};
use super::{Answer, Context};
use crate::app;
use crate::config::Config;
use crate::kafka::settings::Connection;
use crate::kafka::topics::{self, Finding, Plan};

#[derive(Subcommand)]
pub(super) enum Topics {
    /// Shows the topics that are needed, and whether they are there as planned
    Plan(Show),
    /// Creates the topics that are missing; never changes one that exists
    Apply(Apply),
}

#[derive(Args)]
pub(super) struct Show {
    /// Print only the commands of Kafka's own tools that would make it so, for whoever has the rights
    #[arg(long, conflicts_with = "output")]
    commands: bool,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args)]
pub(super) struct Apply {
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Topics {
    pub(super) fn run(self, context: &Context) -> Answer {
        let config = context.config()?;
        super::runtime()?.block_on(async {
            let (connection, plans) = app::planned(&config).await?;
            let found = topics::verify(&connection, &plans).await?;
            match self {
                Self::Plan(show) => show.run(&config, &connection, &found),
                Self::Apply(apply) => apply.run(&config, &connection, found).await,
            }
        })
    }
}

type Found = [(Plan, Finding)];

impl Show {
    fn run(self, config: &Config, connection: &Connection, found: &Found) -> Answer {
        if self.commands {
            let commands = commands(config, connection, found)?;
            return output::print(
                &commands
                    .iter()
                    .map(|line| format!("{line}\n"))
                    .collect::<String>(),
            );
        }
        if self.output == Output::Json {
            let list: Vec<Value> = found
                .iter()
                .map(|(plan, finding)| as_json(plan, finding, state(finding)))
                .collect();
            return output::print_json(&list);
        }
        let mut table = output::table(&["topic", "partitions", "state", "purpose", "settings"]);
        for (plan, finding) in found {
            let settings: Vec<String> = plan
                .settings
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            table.add_row(vec![
                plan.name.clone(),
                plan.partitions.to_string(),
                state(finding).to_owned(),
                plan.purpose.to_owned(),
                settings.join(" "),
            ]);
        }
        let missing = missing(found).count();
        let mut text = format!("{table}\n");
        if missing > 0 {
            text.push_str(&format!(
                "\n{missing} of {} topics are missing; create them with `postrider topics apply`, or see `postrider topics plan --commands`\n",
                found.len()
            ));
        }
        text.push_str(&differences_text(config, found));
        output::print(&text)
    }
}

impl Apply {
    async fn run(
        self,
        config: &Config,
        connection: &Connection,
        found: Vec<(Plan, Finding)>,
    ) -> Answer {
        let wanted: Vec<Plan> = missing(&found).cloned().collect();
        let replication = i32::from(config.kafka.replication_factor);
        let failures = topics::create(connection, &wanted, replication).await?;
        let failure = |plan: &Plan| failures.iter().find(|(name, _)| *name == plan.name);
        let outcome = |plan: &Plan, finding: &Finding| match (finding, failure(plan)) {
            (Finding::Missing, None) => "created",
            (other, _) => state(other),
        };
        if self.output == Output::Json {
            let list: Vec<Value> = found
                .iter()
                .map(|(plan, finding)| as_json(plan, finding, outcome(plan, finding)))
                .collect();
            output::print_json(&list)?;
        } else {
            let mut text = String::new();
            for (plan, finding) in &found {
                if outcome(plan, finding) == "created" {
                    text.push_str(&format!(
                        "created {}, partitions: {}\n",
                        plan.name, plan.partitions
                    ));
                }
            }
            let created = wanted.len() - failures.len();
            text.push_str(&format!(
                "{created} created, {} were there\n",
                found.len() - wanted.len()
            ));
            text.push_str(&differences_text(config, &found));
            output::print(&text)?;
        }
        if failures.is_empty() {
            return Ok(());
        }
        let mut text = format!("{} topics could not be created", failures.len());
        for (name, why) in &failures {
            text.push_str(&format!("\n  {name}: {why}"));
        }
        text.push_str("\nhave somebody with the rights run:");
        let left: Vec<(Plan, Finding)> = found
            .into_iter()
            .filter(|(plan, _)| failure(plan).is_some())
            .collect();
        for command in commands(config, connection, &left)? {
            text.push_str(&format!("\n  {command}"));
        }
        bail!(text)
    }
}

fn missing(found: &Found) -> impl Iterator<Item = &Plan> {
    found
        .iter()
        .filter(|(_, finding)| *finding == Finding::Missing)
        .map(|(plan, _)| plan)
}

fn state(finding: &Finding) -> &'static str {
    match finding {
        Finding::Good => "good",
        Finding::Missing => "missing",
        Finding::Differs(_) => "differs",
    }
}

fn as_json(plan: &Plan, finding: &Finding, state: &str) -> Value {
    let differences: Vec<Value> = match finding {
        Finding::Differs(differences) => differences
            .iter()
            .map(|(setting, wanted, found)| json!({"setting": setting, "wanted": wanted, "found": found}))
            .collect(),
        _ => Vec::new(),
    };
    json!({
        "topic": plan.name,
        "partitions": plan.partitions,
        "settings": plan.settings,
        "purpose": plan.purpose,
        "state": state,
        "differences": differences,
    })
}

fn commands(
    config: &Config,
    connection: &Connection,
    found: &Found,
) -> anyhow::Result<Vec<String>> {
    let servers = &config.kafka.bootstrap_servers;
    let replication = topics::replication(connection, config.kafka.replication_factor.into())?;
    Ok(found
        .iter()
        .flat_map(|(plan, finding)| match finding {
            Finding::Good => Vec::new(),
            Finding::Missing => vec![topics::command(plan, servers, replication)],
            Finding::Differs(differences) => topics::alter_commands(plan, differences, servers),
        })
        .collect())
}

/// What differs and the commands against it; empty when nothing does.
fn differences_text(config: &Config, found: &Found) -> String {
    let mut text = String::new();
    for (plan, finding) in found {
        let Finding::Differs(differences) = finding else {
            continue;
        };
        text.push_str(&format!("\n{} is not as planned:\n", plan.name));
        for (setting, wanted, found) in differences {
            text.push_str(&format!("  {setting} is {found}, planned {wanted}\n"));
        }
        for command in topics::alter_commands(plan, differences, &config.kafka.bootstrap_servers) {
            text.push_str(&format!("  {command}\n"));
        }
        let grows = differences
            .iter()
            .any(|(setting, _, _)| setting == "partitions");
        if grows {
            // What waits stays where it is, and the same key goes elsewhere from then on.
            text.push_str("  (more partitions move webhooks to other instances; stop the routers, or expect the order of a webhook's deliveries to change once)\n");
        }
    }
    text
}
