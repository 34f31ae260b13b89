-- A film rental: who rents, and what there is to rent.
CREATE SCHEMA rental;

CREATE TYPE rental.rating AS ENUM ('everybody', 'with_parents', 'sixteen', 'adults');

CREATE TABLE rental.customer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    first_name text NOT NULL,
    last_name text NOT NULL,
    full_name text GENERATED ALWAYS AS (first_name || ' ' || last_name) STORED,
    email text NOT NULL UNIQUE CHECK (position('@' IN email) > 1),
    active boolean NOT NULL DEFAULT true,
    joined_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE rental.film (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text NOT NULL,
    made_in integer NOT NULL CHECK (made_in BETWEEN 1888 AND 2100),
    rated rental.rating NOT NULL DEFAULT 'everybody',
    cents_per_day integer NOT NULL CHECK (cents_per_day > 0),
    tags text[] NOT NULL DEFAULT '{}',
    words tsvector GENERATED ALWAYS AS (to_tsvector('simple', title)) STORED
);

CREATE TABLE rental.copy (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    film_id bigint NOT NULL REFERENCES rental.film,
    shelf text NOT NULL
);

CREATE INDEX film_words ON rental.film USING gin (words);
CREATE INDEX copy_film ON rental.copy (film_id);
