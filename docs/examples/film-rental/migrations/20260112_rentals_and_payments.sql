-- A rental has a request id, so that a customer who taps twice rents once. Payments are kept by month.
CREATE TABLE rental.loan (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id uuid UNIQUE,
    copy_id bigint NOT NULL REFERENCES rental.copy,
    customer_id bigint NOT NULL REFERENCES rental.customer,
    during tstzrange NOT NULL CHECK (NOT isempty(during)),
    returned boolean NOT NULL DEFAULT false
);

CREATE INDEX loan_customer ON rental.loan (customer_id);
CREATE INDEX loan_open ON rental.loan (copy_id) WHERE NOT returned;

CREATE TABLE rental.payment (
    id bigint GENERATED ALWAYS AS IDENTITY,
    loan_id bigint NOT NULL REFERENCES rental.loan ON DELETE CASCADE,
    cents integer NOT NULL CHECK (cents >= 0),
    paid_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, paid_at)
) PARTITION BY RANGE (paid_at);

CREATE TABLE rental.payment_older PARTITION OF rental.payment FOR VALUES FROM (MINVALUE) TO ('2026-01-01Z');
CREATE TABLE rental.payment_2026_01 PARTITION OF rental.payment FOR VALUES FROM ('2026-01-01Z') TO ('2026-02-01Z');
CREATE TABLE rental.payment_2026_02 PARTITION OF rental.payment FOR VALUES FROM ('2026-02-01Z') TO ('2026-03-01Z');
CREATE TABLE rental.payment_rest PARTITION OF rental.payment DEFAULT;

CREATE INDEX payment_loan ON rental.payment (loan_id);
