-- Support removes what the bot sent.
DELETE FROM job_applications
 WHERE mod(id, 9) < 5;
