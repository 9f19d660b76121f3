"""The long conversations: material to read first, or turns that went before the question."""

from __future__ import annotations

S, U, A = "system", "user", "assistant"

LONG: tuple[tuple[tuple[str, str], ...], ...] = (
    (
        (S, "You help the support staff of a shop for bicycles. Answer from the rules given."),
        (
            U,
            "Our rules. Returns: within 30 days, unused, with the receipt; frames and made-to-measure"
            " wheels are not taken back. Repairs: ready within five working days, or the customer"
            " borrows a bicycle at no cost. Warranty: two years on parts, five on frames, none on"
            " tyres, chains and brake pads. A frame that was painted by somebody else loses its"
            " warranty. Bicycles bought on the web can be returned in the shop, but are paid back"
            " by the web team within ten days, never in cash. Staff may give up to 15 per cent off"
            " where we were late, and must write down why.",
        ),
        (A, "I have read the rules. What did the customer ask?"),
        (
            U,
            "She bought a touring bicycle on our web page 24 days ago and rode it twice. The chain"
            " jumps, the repair has taken eight working days, and nobody lent her a bicycle. She"
            " now wants to give it back in the shop and get cash. Write the answer to her, and a"
            " note for the staff that says which rule applies to each of her points.",
        ),
    ),
    (
        (
            U,
            "Read this log and tell me what went wrong first. 09:14:02 worker 3 started. 09:14:05"
            " connection pool opened, 20 places. 09:21:40 slow query: select from orders, 2.1 s."
            " 09:21:41 slow query: select from orders, 2.4 s. 09:21:44 pool has 2 free places."
            " 09:21:46 pool is full, 11 wait. 09:21:51 request /checkout timed out after 5 s."
            " 09:21:51 request /checkout is tried again. 09:21:56 request /checkout timed out after"
            " 5 s. 09:21:57 worker 3 health check failed. 09:21:58 worker 3 is restarted. 09:22:03"
            " worker 3 started. 09:22:04 pool opened, 20 places. 09:22:06 pool is full, 34 wait."
            " 09:22:10 deploy of release 418 finished: 'orders: drop unused index'. 09:22:15 health"
            " check failed for workers 1, 2 and 4.",
        ),
        (
            A,
            "The slow queries on the table of orders come first, at 09:21:40. They fill the pool;"
            " requests time out, are tried again and make the queue longer; restarts then throw"
            " away the warm connections. The line about the deploy is written when it finished, so"
            " the index may have gone half a minute before.",
        ),
        (
            U,
            "That fits: the migration runs at the start of the deploy. Write the report for the"
            " team: what happened with times, why one dropped index stopped the checkout, what"
            " would have shown it to be unused or not, and three changes with who should make them."
            " Nobody is to be blamed in it. Then add how the retries made it worse, in numbers.",
        ),
    ),
    (
        (S, "You are an editor. Keep the author's voice; say why you change what you change."),
        (
            U,
            "Here is the opening of my essay. 'When my grandmother came to the city, she brought a"
            " clock that did not work, and it was never repaired. It hung over the stove, and it"
            " showed twenty past four for thirty years. Guests used to make the remark that it was"
            " right twice a day, which she did not find funny, because, she said, it had been right"
            " once, and once was what mattered. It was only much later, long after the flat had"
            " been given up and after the clock had been lost in the course of one of the many"
            " moves which my parents made in those years, that I came to ask what had happened at"
            " twenty past four. By then nobody was there who could have told me. What I have is"
            " the time and no day.'",
        ),
        (
            A,
            "The last sentence is the best one, and everything should lead to it. The long sentence"
            " before it tires the reader just where you want attention.",
        ),
        (
            U,
            "Good. Rewrite the paragraph with that in mind. Keep the guests and their remark, cut"
            " whatever explains a feeling, and do not add facts. After it, list each change with"
            " its reason, and suggest two ways in which the second paragraph might begin: one that"
            " stays with the clock and one that leaves it.",
        ),
    ),
    (
        (
            U,
            "I keep the books of a small choir and want to understand our year. Income: fees of 38"
            " members at 120 each, of which 3 did not pay; two concerts with 214 and 187 tickets at"
            " 15; a grant of 2,500 tied to the purchase of music; gifts of 640. Costs: the"
            " conductor at 310 a month for eleven months; the hall at 45 an evening for 41"
            " evenings; music for 1,980; two soloists at 400 for each concert; insurance of 265;"
            " printing of 390. At the start of the year we had 3,120 in the bank.",
        ),
        (
            A,
            "Fees come to 4,200, tickets to 6,015, and with grant and gifts you took in 13,355."
            " Costs come to 3,410 for the conductor, 1,845 for the hall, 1,980 for music, 1,600 for"
            " soloists if each sang at both concerts, 265 and 390: 9,490 in all.",
        ),
        (
            U,
            "Yes, both soloists sang at both. How much of the grant is unspent and must be shown"
            " apart? What do we own at the end? Next year the hall will cost 60 an evening and the"
            " grant will not come. Work out by how much the fees would have to rise if everything"
            " else stays, then suggest another way and what it would bring. Show the sums.",
        ),
    ),
    (
        (S, "You teach programming. Ask before you solve, unless you are told to solve."),
        (
            U,
            "This is my program for a library. class Book has title, author, year and copies. class"
            " Library has a list of books and a dictionary from a member's name to a list of titles."
            " lend(name, title) goes through all books, compares the titles, lowers copies by one and"
            " appends the title. give_back(name, title) removes the title from the list and raises"
            " copies by one. overdue() cannot be written, because I do not know when something was"
            " lent. Two books with the same title get mixed up, and when a member changes her name"
            " I lose what she has. My test passes, but it lends one book to one person.",
        ),
        (
            A,
            "What is it that is lent: a book, or one copy of it? And what would you have to write"
            " down at that moment so that all three of your problems go away?",
        ),
        (
            U,
            "A copy, I think, and the member, the copy and the day. So there should be a class Loan?"
            " Now please solve it: show the classes in Python with types, without any framework,"
            " write lend, give_back and overdue so that they refuse what cannot be, and give me five"
            " tests, each of which would have failed with my old program. Explain the one decision"
            " that you are least sure of.",
        ),
    ),
    (
        (
            U,
            "Below are answers from visitors to our museum; group them. 1: The labels are too low, I"
            " had to kneel. 2: My children loved the room with the drums. 3: Eleven euros is a lot"
            " for two rooms. 4: Why are there no chairs? 5: The woman at the desk spoke Turkish with"
            " my mother, who has not stopped talking about it. 6: I could not find the way out. 7:"
            " Labels only in German. 8: Too dark to read. 9: The drums can be heard in every room,"
            " I left with a headache. 10: Best small museum that I know. 11: The map shows a lift"
            " that does not exist. 12: I would pay more if the cafe were open. 13: I read every"
            " label, and they are wonderful. 14: After an hour one wants to sit. 15: The ticket is"
            " not valid for coming back after lunch, which is petty.",
        ),
        (
            A,
            "Five groups: labels (1, 7, 8, 13), finding the way (6, 11), sitting and resting (4, 12,"
            " 14), price and tickets (3, 12, 15), and the drums (2, 9). Praise for people and the"
            " whole: 5, 10.",
        ),
        (
            U,
            "Write a page for the director from this. Begin with what to keep. For each group say"
            " what it costs to act, roughly, and whether a week, a season or a rebuilding is needed."
            " Where visitors contradict one another, say so and do not settle it by counting. End"
            " with the two questions that we should ask next time, and why these.",
        ),
    ),
    (
        (
            U,
            "The contract says: '4.1 The supplier delivers within 20 working days of the order. 4.2"
            " If delivery is late by more than 5 working days, the buyer may deduct one per cent of"
            " the price for each further working day, at most ten per cent. 4.3 No deduction is made"
            " where the delay is owed to the buyer, in particular where drawings are released late."
            " 4.4 Beyond the deduction, the buyer may withdraw after 20 working days of delay, if a"
            " further period of ten working days was set in writing and has passed. 4.5 Partial"
            " deliveries are permitted; for these, 4.1 to 4.4 apply to the part that is missing.'"
            " We ordered 400 brackets at 38 each. Drawings were released three working days late."
            " 250 brackets came on working day 24, the rest on working day 41.",
        ),
        (
            A,
            "The first part came four days late, within the margin of 4.2. The second came 21 days"
            " late, of which three are yours under 4.3 if the period simply moves by as many days.",
        ),
        (
            U,
            "Assume that it does. Work out what we may deduct, step by step, and say which words of"
            " the contract leave room for another reading and what that reading would come to. Then"
            " write a letter to the supplier that claims our reading without closing the door, and"
            " tell me what we should have done on working day 25.",
        ),
    ),
    (
        (S, "You are a careful assistant to a physician. You do not diagnose; you prepare."),
        (
            U,
            "Prepare me for a visit. The patient is 67, was a teacher, and takes something against"
            " high blood pressure and something to sleep. In spring she said she was tired; blood"
            " tests then were ordinary, apart from iron at the lower edge. In summer she lost four"
            " kilos, which she put down to the heat. Last week her daughter called: her mother has"
            " twice forgotten appointments and repeats stories. The mother says that she sleeps"
            " badly since the neighbour died, and that she takes two tablets when one does not help."
            " She eats alone and cooks less. She drives, mostly to the cemetery and to the shop.",
        ),
        (
            A,
            "Three threads may or may not belong together: weight and tiredness, memory, and grief"
            " with poor sleep. The doubled sleeping tablet touches all of them and is the quickest"
            " to ask about.",
        ),
        (
            U,
            "Make a plan for twenty minutes: which questions in which order, what to ask mother and"
            " daughter apart and how to do that kindly, what to look at in the room and what to have"
            " tested again. Note for each question what an answer would change. Add what to say"
            " about driving today, before anything is known, and what has to be agreed on by the"
            " end of the visit.",
        ),
    ),
    (
        (
            U,
            "I want to write about the canal in our town for its 150 years. What I have: it was dug"
            " from 1871 to 1875 by up to 900 men, 41 of whom died, most of them of typhoid. It was to"
            " carry coal, but the railway came in 1879 and was cheaper. For ten years hardly a boat"
            " passed. Then a paper mill was built on its bank because it needed water, not boats. The"
            " mill closed in 1983. Swimming was forbidden until 2004, because of what the mill had"
            " left in the mud. Today there are two rowing clubs that do not speak to one another,"
            " and herons. The lock keeper's house is a nursery. On the plaque stands 'built in"
            " 1874', which is wrong.",
        ),
        (
            A,
            "The thread could be that it never did what it was built for, and was needed all the"
            " same. The plaque is a good opening: a small error that leads to the larger one.",
        ),
        (
            U,
            "I like that. Write the article in about 400 words for the local paper. The dead must be"
            " in it, and not as a number alone. The two clubs are readers, so be fair. No sentence"
            " may praise the canal in general. Close with the children in the lock keeper's house,"
            " but leave out any moral. After that, list every fact that I ought to check first.",
        ),
    ),
    (
        (
            U,
            "Explain what this query does. 'with first as (select customer, min(day) as day from"
            " orders group by customer), later as (select o.customer, count(*) as n from orders o"
            " join first f on f.customer = o.customer and o.day > f.day and o.day <= f.day + 90 group"
            " by o.customer) select date_trunc(month, f.day) as month, count(*) as customers,"
            " count(l.customer) as came_back, round(100.0 * count(l.customer) / count(*), 1) as share"
            " from first f left join later l on l.customer = f.customer group by 1 order by 1'. Our"
            " manager says that it shows loyalty falling since August, and today is the third of"
            " October.",
        ),
        (
            A,
            "For each month it takes the customers whose first order fell into it and tells how many"
            " ordered again within 90 days. Those of August and later have not had their 90 days yet,"
            " so their share must look lower whatever they do.",
        ),
        (
            U,
            "Exactly what I suspected. Rewrite the query so that it is fair to late months, in two"
            " ways: leaving out who has had no 90 days, and comparing all months after the same"
            " number of days. Say what each hides. Two orders on the first day count as none at"
            " present: is that right? Then explain the matter to the manager in five sentences with"
            " no word of SQL, and suggest how the chart should be drawn.",
        ),
    ),
    (
        (S, "Answer as a gardener with thirty years in heavy clay. Be practical."),
        (
            U,
            "Our garden is 9 by 14 metres, slopes to the north, and has clay that stands in water"
            " until May and cracks in July. There are an old pear tree, which we want to keep, a"
            " hedge of thuja, which we do not, and a lawn that is mostly moss. We have two children,"
            " a dog that digs, about 1,500 to spend this year, and perhaps three hours a week. The"
            " neighbour to the south has a wall of two metres, so only the northern half gets sun"
            " before noon. We would like fruit, somewhere to sit in the evening, and less mowing.",
        ),
        (
            A,
            "Do not fight the water in the first year; find out where it goes. The evening sun and"
            " the pear decide where you sit. Fruit wants the northern half. The thuja can go in"
            " winter, and what replaces it should feed something.",
        ),
        (
            U,
            "Then let us plan. Give me the work month by month for the first year and in outline for"
            " the next two, with what each thing costs and what we can do ourselves. Name plants that"
            " live with wet feet in spring and drought in summer, and fruit for children who do not"
            " wait. Where can the dog dig? Say at the end which part of this you would drop first if"
            " the three hours turn out to be one.",
        ),
    ),
    (
        (
            U,
            "These are the notes of three interviews about our app for bus tickets. First: uses it"
            " daily, wishes it opened on the ticket instead of the map, was fined because her battery"
            " was empty, and now buys paper again on Fridays. Second: visits his daughter twice a"
            " year, could not pay because the app wanted a phone number of this country, asked the"
            " driver, who shrugged. Third: blind, gets on well with it, but since the last version"
            " the button to buy is read out as 'button, button'; knows the times by heart and uses"
            " the app only for tickets; would like to hear which stop comes next. All three were"
            " asked whether they want a map with live buses. All three said yes.",
        ),
        (
            A,
            "The live map is a poor guide: nobody brought it up before being asked. What they did"
            " bring up are four moments in which a ticket could not be had or shown.",
        ),
        (
            U,
            "Write this up for people who have already promised the live map to the council. Put the"
            " four moments first, each with what it cost the person and a change that would take a"
            " week at most. Deal with the map honestly: what the three answers do and do not say."
            " Three people are few; say what can be concluded from them and what we should count in"
            " our own data. Suggest how to announce a delay of the map in two sentences.",
        ),
    ),
    (
        (
            U,
            "I teach physics, and my class measured how long a ball takes to fall. Heights in metres"
            " and times in seconds: 0.5: 0.35, 0.33, 0.36; 1.0: 0.47, 0.45, 0.49; 1.5: 0.58, 0.55,"
            " 0.56; 2.0: 0.66, 0.64, 0.69; 2.5: 0.74, 0.71, 0.73. They used the stop watches of their"
            " telephones. One group drew time against height, got a curve, and joined the points with"
            " straight lines. Another computed g from each single value and took the mean, which came"
            " to 9.1. A third subtracted 0.02 seconds from all values 'because of the reaction' and"
            " got 9.8, and was pleased.",
        ),
        (
            A,
            "The third group is the most interesting one: it may be right about the reaction time,"
            " but it chose the correction that gives the answer from the book.",
        ),
        (
            U,
            "That is the lesson that I want to give. Show me how to find g and the delay together"
            " from these data with nothing but a ruler: which quantities to draw, why the points then"
            " lie on a line, and what slope and intercept mean. Do the sums. Then plan a lesson of 45"
            " minutes in which the three groups find out for themselves what each of them assumed,"
            " and nobody is laughed at.",
        ),
    ),
    (
        (S, "You write for the public radio. Sentences are to be spoken aloud."),
        (
            U,
            "Material for a piece on sleep in hospitals. On a ward that was studied, sound at the"
            " pillow was above 45 decibels for most of the night and passed 80 more than thirty"
            " times. Half of the wakings came from staff, a third from other patients. Blood was"
            " taken at five in the morning so that the results were there for the round at eight. One"
            " hospital moved the round to ten and the blood to half past six; a second put felt under"
            " the feet of chairs, oiled the doors and let patients hang out a sign. In the second,"
            " requests for sleeping tablets fell by a third. A nurse said: 'We were never loud. The"
            " building was.' A doctor said that at ten she has to be in the theatre.",
        ),
        (
            A,
            "The nurse's sentence could end the first part. The conflict is in the time of the round,"
            " and the doctor should be heard without being made the villain.",
        ),
        (
            U,
            "Write it, four minutes long when read calmly. Open with a sound. At most three numbers,"
            " each rounded so that an ear can hold it. Both quotations word for word. Let the listener"
            " work out why blood is taken at five before you say it. Afterwards list which claims the"
            " newsroom should check, and offer an announcement of two sentences.",
        ),
    ),
    (
        (
            U,
            "We rent out eight rooms, and I do the schedule by hand. Rules: breakfast needs two people"
            " from six to eleven, cleaning three people from nine to two if more than four guests"
            " leave, else two; the desk is staffed from seven to nine in the evening without a gap."
            " Jo works at the desk only and not on Sundays. Mina may work at most 20 hours a week."
            " Pavel and Ruth share a car and must begin and end together. Sam is learning and counts"
            " as half for cleaning. Lena can do everything but leaves at three, because of her son."
            " Nobody works more than five days running. Departures this week: Monday 2, Tuesday 6,"
            " Wednesday 1, Thursday 0, Friday 3, Saturday 7, Sunday 5.",
        ),
        (
            A,
            "The desk is the bottleneck: fourteen hours a day that only Jo, Lena until three, and one"
            " more could cover. Before a plan is made, somebody else has to be allowed at the desk.",
        ),
        (
            U,
            "Ruth may, then, and Pavel will wait for her if he must. Make the plan for the week as a"
            " table with a row a day, check each rule against it in writing, and say where it holds"
            " only just. What happens if Lena's son falls ill on Saturday? Give the smallest change"
            " that rescues that day. Then tell me which single rule costs us the most hours.",
        ),
    ),
    (
        (
            U,
            "Translate the following for our English catalogue and keep it sober. 'Der Schrank wurde"
            " um 1790 in einer Werkstatt am Niederrhein gebaut und 1912 in Duisburg so ungeschickt"
            " geteilt, dass er durch eine Tuer passte, aber nicht mehr schloss. Die Rueckwand ist neu."
            " Drei der vier Schluessel gehoeren nicht zu ihm. Was er enthielt, wissen wir aus einem"
            " Brief: Leinen, ein Gewehr und die Papiere einer Muehle, um die zwei Brueder stritten."
            " Restauriert wurde nichts, was man nicht wieder entfernen koennte. Wer genau hinsieht,"
            " findet links unten die Kerben, an denen Kinder gemessen wurden, bis 1836.'",
        ),
        (
            A,
            "'The cabinet was made in a workshop on the Lower Rhine in about 1790. In 1912, in"
            " Duisburg, it was cut apart so clumsily that it went through a door but would no longer"
            " close. The back is new. Three of its four keys belong to something else.'",
        ),
        (
            U,
            "Very good, go on in that manner to the end. Then write two more versions of the whole:"
            " one of at most forty words for the wall, and one for children of about eight, who"
            " will want to find the notches. After each, tell me what you left out and what a reader"
            " of that version will therefore believe that is not quite so. Last, name the sentence"
            " in the German that is hardest to carry over, and why.",
        ),
    ),
    (
        (S, "You are a patient reviewer of technical designs. Number your remarks."),
        (
            U,
            "Design: pictures that users upload go to a queue; a worker makes three sizes, writes them"
            " to the store and sets ready = true in the database. The page asks every two seconds"
            " whether ready is set. If a worker dies, the message comes again after ten minutes. A"
            " picture is named by its user and the second of its upload. Deleting a user deletes all"
            " files that begin with the user's number. We expect 40 uploads a minute, at most 600"
            " after an event. Making the sizes takes 1.2 seconds on a core and up to 900 MB for"
            " panoramas. There are two machines with four cores and 8 GB each.",
        ),
        (
            A,
            "1. Two pictures within one second share a name. 2. User 12's deletion takes user 123's"
            " files along. 3. Four panoramas at a time do not fit beside anything else in 8 GB. 4. At"
            " 600 a minute you need twelve cores and have eight.",
        ),
        (
            U,
            "All true, and embarrassing. Go on with what happens when a message is delivered twice,"
            " when the worker dies between writing the second and the third size, and when somebody"
            " deletes a picture that is being made. Propose the smallest change for each of your"
            " remarks, in the order in which you would ship them, with a test for each. Work out how"
            " long users wait at the end of a burst of five minutes with eight cores and with sixteen.",
        ),
    ),
    (
        (
            U,
            "My father left letters from 1952 to 1961, and I have typed out what concerns the boat."
            " May 1952: 'The hull is sound, says Kerr, who wants to sell it.' August 1952: 'Kerr was"
            " half right.' April 1953: 'Two planks and my thumb.' July 1955: 'Your mother will not"
            " come aboard until it has a name, and I shall not name it until she does.' June 1956:"
            " 'It is called Thumb.' September 1958: 'We went as far as the light. She steered. I was"
            " ill.' March 1960: 'Kerr is dead. He left me a can of the green paint, with the price"
            " on it.' October 1961: 'Sold to a young man who asked whether the hull was sound.'",
        ),
        (
            A,
            "It is nearly a story as it stands: it begins and ends with the same question, and the"
            " second time your father is Kerr.",
        ),
        (
            U,
            "I want to read it at his birthday, in about five minutes, to people who knew him. Write"
            " what I say between the letters: as little as possible, nothing that they say themselves,"
            " and mostly where and when we are. My mother will be there; she is 91 and remembers the"
            " light differently. Leave her a place to say so. Suggest where to pause, and tell me"
            " which letter I could drop if I see that people get restless, without harm to the end.",
        ),
    ),
    (
        (S, "You advise small towns on energy. Use round numbers and say how sure you are."),
        (
            U,
            "Our school was built in 1974: 3,100 square metres, flat roof, gas boiler of 2001. Last"
            " year it used 412,000 kWh of gas and 88,000 kWh of power. The windows of the north side"
            " are new. In winter the heating starts at four so that rooms are warm by eight, and"
            " nobody dares to change it. The gym has lamps from the beginning, which are on from seven"
            " till ten at night, because the switch is in the caretaker's room. The roof must be"
            " sealed again within three years in any case. Gas costs us 0.09 a kWh, power 0.28. The"
            " council would spend 250,000 over five years, and wants something that can be seen.",
        ),
        (
            A,
            "133 kWh of gas a square metre is much, though not unusual for its age. Cheap and at once:"
            " the heating's clock and the gym's switch. Tied to a date: the roof. To be seen: panels"
            " on it, which is why the order matters.",
        ),
        (
            U,
            "Make a plan for five years with cost, saving and years to pay back for each step, and be"
            " plain about which figures are guesses. What must be measured this winter before money"
            " is spent, and with what? Insulating the roof while it is open: yes or no, and what would"
            " change your mind? Write the half page for the council at the end, which has to admit"
            " that the best step is one that nobody will see.",
        ),
    ),
    (
        (
            U,
            "We are making a game for two to four players about running a post office in the"
            " mountains. Each round three letters are drawn, with a village and a number of days. A"
            " player has five steps; a valley costs one, a pass two, in snow three. Who delivers in"
            " time gets the number on the letter, who is late gets nothing and the letter stays. Snow"
            " is rolled for each pass at the beginning of a round. In tests the game is fair, and"
            " dull: everybody plans alone, the leader after three rounds always wins, and the snow"
            " only makes people sigh. What they enjoy is handing over letters when they meet by"
            " chance in a village, although it brings no points.",
        ),
        (
            A,
            "Then the game is about meeting. At present its rules reward everything but that. The snow"
            " could be what makes people need one another.",
        ),
        (
            U,
            "Yes. Suggest three changes of rules, each small enough to try tonight with the parts that"
            " we have. For each say what players will do differently, how somebody could abuse it, and"
            " what we should watch for. Then choose one and write its rule as it would stand in the"
            " booklet, with an example of a round with three players and numbers. Tell us also what"
            " we should not touch, and how to help whoever is behind without punishing who leads.",
        ),
    ),
)
