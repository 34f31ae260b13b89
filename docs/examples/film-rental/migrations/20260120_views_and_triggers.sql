-- What the counter looks at, and who changed a customer last.
CREATE FUNCTION rental.note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END
$$;

CREATE TRIGGER customer_changed BEFORE UPDATE ON rental.customer
    FOR EACH ROW EXECUTE FUNCTION rental.note_change();

-- one statement for the counter: a loan and its payment, or nothing
CREATE FUNCTION rental.rent(request uuid, chance integer) RETURNS bigint LANGUAGE sql AS $$
    WITH chosen AS (
        SELECT c.id, f.cents_per_day FROM rental.copy AS c JOIN rental.film AS f ON f.id = c.film_id
         WHERE c.id = 1 + chance % (SELECT max(id) FROM rental.copy)),
    lent AS (
        INSERT INTO rental.loan (request_id, copy_id, customer_id, during)
        SELECT request, chosen.id, 1 + chance % (SELECT max(id) FROM rental.customer),
               tstzrange(clock_timestamp(), clock_timestamp() + interval '3 days')
          FROM chosen RETURNING id)
    INSERT INTO rental.payment (loan_id, cents)
    SELECT lent.id, 3 * chosen.cents_per_day FROM lent, chosen RETURNING loan_id
$$;

CREATE VIEW rental.open_loan AS
    SELECT l.id, c.full_name, f.title, upper(l.during) AS due
      FROM rental.loan AS l JOIN rental.customer AS c ON c.id = l.customer_id
      JOIN rental.copy AS k ON k.id = l.copy_id JOIN rental.film AS f ON f.id = k.film_id
     WHERE NOT l.returned;

CREATE MATERIALIZED VIEW rental.takings AS
    SELECT date_trunc('month', paid_at) AS month, sum(cents) AS cents FROM rental.payment GROUP BY 1;
