//! A server with something of everything that must survive.

use crate::postgres::Postgres;

pub(crate) const WEIRD: &str = r#"we"ird = 'näme"#;
pub(crate) const APP_PASSWORD: &str = "app's own";

/// Roles, two databases with settings, extensions, sequences, large objects, views, a trigger; `rows` rows of about 1 kB.
pub(crate) fn fill(postgres: &Postgres, rows: u32) {
    postgres.sql(
        "postgres",
        r#"CREATE ROLE shop LOGIN PASSWORD 'app''s own' CONNECTION LIMIT 30; CREATE ROLE reporters NOLOGIN;
           CREATE ROLE "jane.doe; --" LOGIN VALID UNTIL '2030-01-01'; GRANT reporters TO "jane.doe; --" WITH ADMIN OPTION;
           GRANT pg_read_all_data TO reporters; ALTER ROLE shop SET work_mem = '8MB'; COMMENT ON ROLE shop IS 'it''s the shop';"#,
    );
    postgres.sql(
        "postgres",
        "CREATE DATABASE orders OWNER shop TEMPLATE template0 LC_CTYPE 'C' CONNECTION LIMIT 50",
    );
    postgres.sql(
        "postgres",
        &format!(
            r#"CREATE DATABASE "{}" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"#,
            WEIRD.replace('"', "\"\"")
        ),
    );
    postgres.sql(
        "orders",
        &format!(
            r#"CREATE EXTENSION pgcrypto; CREATE EXTENSION hstore;
            CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL, tags hstore, secret bytea, born date, score numeric);
            INSERT INTO customers (name, tags, secret, born, score)
                SELECT 'Kundin ' || n, hstore('n', n::text), gen_random_bytes(500), date '1970-01-01' + n % 20000, n / 7.0
                FROM generate_series(1, {rows}) n;
            CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, customer int REFERENCES customers, at timestamptz DEFAULT now(), note json);
            INSERT INTO orders (customer, note) SELECT id, json_build_object('id', id, 'text', E'tab\tand "quotes" and \\ ü') FROM customers;
            CREATE INDEX ON orders (customer); CREATE MATERIALIZED VIEW totals AS SELECT customer, count(*) FROM orders GROUP BY 1;
            CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.score := 1; RETURN NEW; END $$;
            CREATE TRIGGER stamp BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION stamp();
            ALTER TABLE customers OWNER TO shop; ALTER TABLE orders OWNER TO shop; GRANT SELECT ON customers TO reporters;
            SELECT lo_from_bytea(0, gen_random_bytes(1000)) FROM generate_series(1, 20);
            CREATE SEQUENCE invoice START 1000 INCREMENT 7; SELECT nextval('invoice') FROM generate_series(1, 5);
            COMMENT ON DATABASE orders IS 'it''s :"database" \ all'; ALTER DATABASE orders SET search_path = "$user", public, "a,b";
            ALTER DATABASE orders SET app.mode = 'x y'; ALTER ROLE shop IN DATABASE orders SET statement_timeout = '17min';
            REVOKE CONNECT ON DATABASE orders FROM PUBLIC; GRANT CONNECT ON DATABASE orders TO reporters WITH GRANT OPTION;"#
        ),
    );
    postgres.sql(WEIRD_CONNINFO, "CREATE TABLE t (a text); INSERT INTO t VALUES ('ä'), (NULL), (''); CREATE SCHEMA \"S s\"; CREATE TABLE \"S s\".\"T;t\" AS SELECT 1 AS one");
    postgres.sql("postgres", "CREATE TABLE in_postgres (a int); INSERT INTO in_postgres VALUES (42)");
}

/// psql takes a name with `=` for a connection string.
pub(crate) const WEIRD_CONNINFO: &str = r#"dbname='we"ird = \'näme'"#;

/// All hashes of all databases.
pub(crate) fn hashes(postgres: &Postgres) -> Vec<String> {
    ["orders", WEIRD_CONNINFO, "postgres"].map(|database| postgres.hash(database)).into()
}
