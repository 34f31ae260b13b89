-- Invented rows, the same on every drill: 300 customers, 120 films, 400 copies, 2000 loans with their payments.
INSERT INTO rental.customer (first_name, last_name, email, joined_at)
SELECT (ARRAY['Ada', 'Ben', 'Cleo', 'Dan', 'Eva'])[1 + n % 5], 'Customer' || n, 'customer' || n || '@example.test',
       timestamptz '2025-01-01Z' + n * interval '6 hours'
  FROM generate_series(1, 300) AS n;

INSERT INTO rental.film (title, made_in, rated, cents_per_day, tags)
SELECT 'Film number ' || n, 1950 + n % 70, (enum_range(NULL::rental.rating))[1 + n % 4], 100 + n % 400,
       ARRAY['shelf' || n % 7, CASE WHEN n % 2 = 0 THEN 'old' ELSE 'new' END]
  FROM generate_series(1, 120) AS n;

INSERT INTO rental.copy (film_id, shelf)
SELECT 1 + n % 120, chr(65 + n % 8) || n % 30 FROM generate_series(1, 400) AS n;

INSERT INTO rental.loan (request_id, copy_id, customer_id, during, returned)
SELECT md5('loan' || n)::uuid, 1 + n % 400, 1 + n % 300,
       tstzrange(timestamptz '2025-11-01Z' + n * interval '1 hour', timestamptz '2025-11-03Z' + n * interval '1 hour'), true
  FROM generate_series(1, 2000) AS n;

INSERT INTO rental.payment (loan_id, cents, paid_at)
SELECT l.id, 2 * f.cents_per_day, lower(l.during)
  FROM rental.loan AS l JOIN rental.copy AS c ON c.id = l.copy_id JOIN rental.film AS f ON f.id = c.film_id;

REFRESH MATERIALIZED VIEW rental.takings;
